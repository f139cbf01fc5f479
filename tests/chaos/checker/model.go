package main

import (
	"encoding/json"
	"hash/fnv"
	"math"

	"github.com/anishathalye/porcupine"
)

// Op is one line of a history: what a client asked of one object, and what it was told.
type Op struct {
	ID      int    `json:"id"`
	Client  int    `json:"client"`
	Node    int    `json:"node"`
	Obj     string `json:"obj"`
	Kind    string `json:"kind"` // secret or key
	F       string `json:"f"`    // set, get, sign, patch, delete, recover, list
	Version string `json:"version,omitempty"`
	Enabled *bool  `json:"enabled,omitempty"`
	Tag     string `json:"tag,omitempty"`
	Inv     int64  `json:"inv"`
	Ret     int64  `json:"ret"`
	// ok; notfound, disabled, deleted: refused, which tells of the state; unknown: may or may not have happened;
	// none: certainly did not happen.
	Result     string `json:"result"`
	OutVersion string `json:"out_version,omitempty"`
	OutTag     string `json:"out_tag,omitempty"`
	OutEnabled *bool  `json:"out_enabled,omitempty"`
	Items      []Item `json:"items,omitempty"`
	Whole      bool   `json:"whole,omitempty"` // the list was one page
}

// Item is one version in a list.
type Item struct {
	Version string `json:"version"`
	Tag     string `json:"tag"`
	Enabled bool   `json:"enabled"`
}

// state of one object. Never changed, only replaced.
type state struct {
	versions []Item // in order of creation; the last one is the newest
	deleted  bool
}

func (s *state) find(version string) int {
	for i := range s.versions {
		if s.versions[i].Version == version {
			return i
		}
	}
	return -1
}

func (s *state) live() bool { return len(s.versions) > 0 && !s.deleted }

func (s *state) with(version, tag string) *state {
	versions := make([]Item, len(s.versions), len(s.versions)+1)
	copy(versions, s.versions)
	return &state{versions: append(versions, Item{version, tag, true}), deleted: s.deleted}
}

func (s *state) patched(at int, tag string, enabled bool) *state {
	versions := make([]Item, len(s.versions))
	copy(versions, s.versions)
	versions[at].Tag, versions[at].Enabled = tag, enabled
	return &state{versions: versions, deleted: s.deleted}
}

func equal(a, b any) bool {
	x, y := a.(*state), b.(*state)
	if x == y {
		return true
	}
	if x.deleted != y.deleted || len(x.versions) != len(y.versions) {
		return false
	}
	for i := range x.versions {
		if x.versions[i] != y.versions[i] {
			return false
		}
	}
	return true
}

func hash(a any) uint64 {
	s := a.(*state)
	h := fnv.New64a()
	for _, v := range s.versions {
		h.Write([]byte(v.Version))
		h.Write([]byte(v.Tag))
		if v.Enabled {
			h.Write([]byte{1})
		}
	}
	if s.deleted {
		h.Write([]byte{2})
	}
	return h.Sum64()
}

// step says whether the object, being in state s, could have answered op so, and what state that leaves.
func step(s *state, op *Op) (bool, *state) {
	switch op.F {
	case "set":
		switch op.Result {
		case "ok", "unknown": // an unknown set is kept only when its version was seen, so it did happen
			return !s.deleted && s.find(op.OutVersion) < 0, s.with(op.OutVersion, op.Tag)
		case "deleted":
			return s.deleted, s
		}
	case "get", "sign":
		if op.Result == "notfound" {
			return !s.live() || (op.Version != "" && s.find(op.Version) < 0), s
		}
		at := len(s.versions) - 1
		if op.Version != "" {
			at = s.find(op.Version)
		}
		if !s.live() || at < 0 {
			return false, s
		}
		v := s.versions[at]
		if op.Result == "disabled" {
			return !v.Enabled, s
		}
		if op.Result != "ok" || op.OutVersion != v.Version {
			return false, s
		}
		if op.OutTag != "" && op.OutTag != v.Tag {
			return false, s
		}
		if op.OutEnabled != nil && *op.OutEnabled != v.Enabled {
			return false, s
		}
		// What is disabled is not even described.
		return v.Enabled, s
	case "patch":
		at := s.find(op.Version)
		possible := s.live() && at >= 0
		switch op.Result {
		case "ok":
			if !possible {
				return false, s
			}
			return true, s.patched(at, op.Tag, *op.Enabled)
		case "notfound":
			return !possible, s
		case "unknown":
			if possible {
				return true, s.patched(at, op.Tag, *op.Enabled)
			}
			return true, s
		}
	case "delete", "recover":
		wanted := op.F == "delete"
		possible := len(s.versions) > 0 && s.deleted != wanted
		switch op.Result {
		case "ok":
			return possible, &state{versions: s.versions, deleted: wanted}
		case "notfound":
			return !possible, s
		case "unknown":
			if possible {
				return true, &state{versions: s.versions, deleted: wanted}
			}
			return true, s
		}
	case "list":
		if op.Result != "ok" {
			return false, s
		}
		if !s.live() {
			return len(op.Items) == 0, s
		}
		if len(op.Items) != len(s.versions) {
			return false, s
		}
		for _, item := range op.Items {
			at := s.find(item.Version)
			if at < 0 || s.versions[at] != item {
				return false, s
			}
		}
		return true, s
	}
	return false, s
}

var model = porcupine.Model{
	Init: func() any { return &state{} },
	Step: func(s, input, _ any) (bool, any) {
		ok, next := step(s.(*state), input.(*Op))
		return ok, next
	},
	Equal:             equal,
	Hash:              hash,
	DescribeOperation: func(input, _ any) string { return describe(input) },
	DescribeState: func(s any) string {
		return describe(map[string]any{"versions": s.(*state).versions, "deleted": s.(*state).deleted})
	},
}

func describe(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// prepare turns the ops of one object into what Porcupine takes. What certainly did not happen and reads without an answer
// say nothing. A write of unknown outcome may happen at any time after its invocation, or never, which is the same as last.
// A set of unknown outcome counts if its version was seen anywhere, for the last ops of a run list every version.
func prepare(ops []*Op) []porcupine.Operation {
	seen := map[string]string{} // tag of a set -> its version
	for _, op := range ops {
		if op.OutTag != "" && op.OutVersion != "" {
			seen[op.OutTag] = op.OutVersion
		}
		for _, item := range op.Items {
			seen[item.Tag] = item.Version
		}
	}
	var history []porcupine.Operation
	for _, op := range ops {
		ret := op.Ret
		switch op.Result {
		case "none":
			continue
		case "unknown":
			ret = math.MaxInt64
			switch op.F {
			case "get", "sign", "list":
				continue
			case "set":
				if op.OutVersion == "" {
					op.OutVersion = seen[op.Tag]
				}
				if op.OutVersion == "" {
					continue
				}
			}
		}
		if op.F == "list" && !op.Whole {
			continue
		}
		history = append(history, porcupine.Operation{ClientId: op.Client, Input: op, Call: op.Inv, Output: nil, Return: ret})
	}
	return history
}
