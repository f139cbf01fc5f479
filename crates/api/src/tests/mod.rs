//! Tests of the whole service in one process, through the real handler.

mod identity;
mod issuers;
mod keys;
mod permissions;
mod release;
mod rotation;
mod rubbish;

use crate::testing::World;
