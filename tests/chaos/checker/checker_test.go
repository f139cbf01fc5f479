package main

import (
	"strings"
	"testing"
	"time"
)

// An honest life of one key, then the same with one lie each.
const honest = `
{"id":1,"obj":"k","kind":"key","f":"get","inv":0,"ret":5,"result":"notfound"}
{"id":2,"obj":"k","kind":"key","f":"set","tag":"a","inv":10,"ret":20,"result":"ok","out_version":"v1"}
{"id":3,"obj":"k","kind":"key","f":"sign","inv":30,"ret":40,"result":"ok","out_version":"v1"}
{"id":4,"obj":"k","kind":"key","f":"set","tag":"b","inv":50,"ret":60,"result":"ok","out_version":"v2"}
{"id":5,"obj":"k","kind":"key","f":"get","inv":70,"ret":80,"result":"ok","out_version":"v2","out_tag":"b","out_enabled":true}
{"id":6,"obj":"k","kind":"key","f":"patch","version":"v2","enabled":false,"tag":"c","inv":90,"ret":100,"result":"ok"}
{"id":7,"obj":"k","kind":"key","f":"sign","inv":110,"ret":120,"result":"disabled"}
{"id":8,"obj":"k","kind":"key","f":"delete","inv":130,"ret":140,"result":"ok"}
{"id":9,"obj":"k","kind":"key","f":"set","tag":"d","inv":150,"ret":160,"result":"deleted"}
{"id":10,"obj":"k","kind":"key","f":"recover","inv":170,"ret":180,"result":"ok"}
{"id":11,"obj":"k","kind":"key","f":"list","inv":190,"ret":200,"result":"ok","whole":true,"items":[{"version":"v1","tag":"a","enabled":true},{"version":"v2","tag":"c","enabled":false}]}
`

func verdict(t *testing.T, history string) Verdict {
	t.Helper()
	objects, err := read(strings.NewReader(strings.TrimSpace(history)))
	if err != nil {
		t.Fatal(err)
	}
	return check(objects, 10*time.Second, "")
}

func TestHonest(t *testing.T) {
	if v := verdict(t, honest); len(v.Illegal)+len(v.Undecided) != 0 || v.Ops != 11 {
		t.Fatal(v)
	}
}

func TestLiesAreCaught(t *testing.T) {
	lies := []struct{ name, old, new string }{
		{"stale read", `"inv":70,"ret":80,"result":"ok","out_version":"v2","out_tag":"b"`, `"inv":70,"ret":80,"result":"ok","out_version":"v1","out_tag":"a"`},
		{"lost write", `{"version":"v1","tag":"a","enabled":true},`, ``},
		{"write out of nothing", `"items":[`, `"items":[{"version":"v3","tag":"z","enabled":true},`},
		{"revoked key used", `"inv":110,"ret":120,"result":"disabled"`, `"inv":110,"ret":120,"result":"ok","out_version":"v2"`},
		{"disabling lost", `"tag":"c","enabled":false}]`, `"tag":"b","enabled":true}]`},
		{"deleted key used", `"f":"set","tag":"d","inv":150,"ret":160,"result":"deleted"`, `"f":"sign","inv":150,"ret":160,"result":"ok","out_version":"v2"`},
		{"created while deleted", `"tag":"d","inv":150,"ret":160,"result":"deleted"`, `"tag":"d","inv":150,"ret":160,"result":"ok","out_version":"v3"`},
		{"deleted twice", `"f":"recover","inv":170,"ret":180,"result":"ok"`, `"f":"delete","inv":170,"ret":180,"result":"ok"`},
		{"not found, though it was there", `"inv":30,"ret":40,"result":"ok","out_version":"v1"`, `"inv":30,"ret":40,"result":"notfound"`},
		{"disabled key described", `"f":"sign","inv":110,"ret":120,"result":"disabled"`, `"f":"get","inv":110,"ret":120,"result":"ok","out_version":"v2","out_tag":"c","out_enabled":false`},
		{"wrong tags", `"out_tag":"b"`, `"out_tag":"a"`},
	}
	for _, lie := range lies {
		t.Run(lie.name, func(t *testing.T) {
			if strings.Count(honest, lie.old) != 1 {
				t.Fatalf("%q is not in the history once", lie.old)
			}
			if v := verdict(t, strings.Replace(honest, lie.old, lie.new, 1)); len(v.Illegal) != 1 {
				t.Fatal("not caught", v)
			}
		})
	}
}

// What is concurrent may be seen in either order, but all see the same one.
func TestConcurrent(t *testing.T) {
	writes := `
{"id":1,"obj":"s","kind":"secret","f":"set","tag":"a","inv":0,"ret":100,"result":"ok","out_version":"v1"}
{"id":2,"obj":"s","kind":"secret","f":"set","tag":"b","inv":0,"ret":100,"result":"ok","out_version":"v2"}
`
	get := func(version, tag, times string) string {
		return `{"obj":"s","kind":"secret","f":"get",` + times + `,"result":"ok","out_version":"` + version + `","out_tag":"` + tag + `"}` + "\n"
	}
	for _, history := range []string{
		writes + get("v1", "a", `"inv":10,"ret":20`) + get("v2", "b", `"inv":30,"ret":40`),
		writes + get("v2", "b", `"inv":10,"ret":20`) + get("v1", "a", `"inv":30,"ret":40`),
	} {
		if v := verdict(t, history); len(v.Illegal) != 0 {
			t.Fatal(v)
		}
	}
	back := writes + get("v1", "a", `"inv":10,"ret":20`) + get("v2", "b", `"inv":30,"ret":40`) + get("v1", "a", `"inv":50,"ret":60`)
	if v := verdict(t, back); len(v.Illegal) != 1 {
		t.Fatal("new, then old, was not caught")
	}
}

// An unknown write may have happened or not, but not both.
func TestUnknown(t *testing.T) {
	start := `
{"id":1,"obj":"s","kind":"secret","f":"set","tag":"a","inv":0,"ret":10,"result":"ok","out_version":"v1"}
{"id":2,"obj":"s","kind":"secret","f":"patch","version":"v1","enabled":false,"tag":"b","inv":20,"ret":30,"result":"unknown"}
{"id":3,"obj":"s","kind":"secret","f":"set","tag":"x","inv":20,"ret":30,"result":"unknown"}
`
	get := func(times, result string) string {
		return `{"obj":"s","kind":"secret","f":"get",` + times + `,"result":` + result + "}\n"
	}
	ok, disabled := `"ok","out_version":"v1","out_tag":"a"`, `"disabled"`
	for history, illegal := range map[string]int{
		start + get(`"inv":40,"ret":50`, ok):                                          0,
		start + get(`"inv":40,"ret":50`, disabled):                                    0,
		start + get(`"inv":40,"ret":50`, ok) + get(`"inv":60,"ret":70`, disabled):     0,
		start + get(`"inv":40,"ret":50`, disabled) + get(`"inv":60,"ret":70`, ok):     1,
		start + get(`"inv":40,"ret":50`, `"ok","out_version":"v2","out_tag":"x"`):     0,
		start + get(`"inv":40,"ret":50`, `"ok","out_version":"v3","out_tag":"other"`): 1,
	} {
		if v := verdict(t, history); len(v.Illegal) != illegal {
			t.Fatal(history, v)
		}
	}
}
