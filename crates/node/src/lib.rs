//! Lands in a later step; see README.md.
