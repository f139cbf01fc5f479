// Command checker reads a history, one JSON object a line, and says for each object whether there is an order of all its
// operations, consistent with real time, in which a single copy of the object would have answered them so. Porcupine
// decides; only the model is ours, and it shares nothing with the checks in chaos.py.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Verdict is what is printed.
type Verdict struct {
	Objects   int      `json:"objects"`
	Ops       int      `json:"ops"`
	Longest   int      `json:"longest"`
	Illegal   []string `json:"illegal"`
	Undecided []string `json:"undecided"`
	Seconds   float64  `json:"seconds"`
}

func read(in io.Reader) (map[string][]*Op, error) {
	objects := map[string][]*Op{}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<24)
	for number := 1; lines.Scan(); number++ {
		op := &Op{}
		if err := json.Unmarshal(lines.Bytes(), op); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		objects[op.Obj] = append(objects[op.Obj], op)
	}
	return objects, lines.Err()
}

// check decides every object, each within the given time.
func check(objects map[string][]*Op, patience time.Duration, pictures string) Verdict {
	started := time.Now()
	verdict := Verdict{Objects: len(objects), Illegal: []string{}, Undecided: []string{}}
	var lock sync.Mutex
	var wait sync.WaitGroup
	places := make(chan struct{}, runtime.NumCPU())
	for name, ops := range objects {
		wait.Add(1)
		places <- struct{}{}
		go func(name string, ops []*Op) {
			defer func() { <-places; wait.Done() }()
			history := prepare(ops)
			result := porcupine.CheckOperationsTimeout(model, history, patience)
			if result == porcupine.Illegal && pictures != "" {
				_, info := porcupine.CheckOperationsVerbose(model, history, patience)
				path := filepath.Join(pictures, "illegal-"+name+".html")
				if err := porcupine.VisualizePath(model, info, path); err != nil {
					fmt.Fprintln(os.Stderr, err)
				}
			}
			lock.Lock()
			defer lock.Unlock()
			verdict.Ops += len(history)
			if len(history) > verdict.Longest {
				verdict.Longest = len(history)
			}
			switch result {
			case porcupine.Illegal:
				verdict.Illegal = append(verdict.Illegal, name)
			case porcupine.Unknown:
				verdict.Undecided = append(verdict.Undecided, name)
			}
		}(name, ops)
	}
	wait.Wait()
	sort.Strings(verdict.Illegal)
	sort.Strings(verdict.Undecided)
	verdict.Seconds = time.Since(started).Seconds()
	return verdict
}

func main() {
	patience := flag.Duration("patience", 10*time.Second, "time for each object")
	pictures := flag.String("pictures", "", "directory for a picture of each history that is not linearizable")
	flag.Parse()
	in := os.Stdin
	if flag.NArg() == 1 {
		file, err := os.Open(flag.Arg(0))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		defer file.Close()
		in = file
	}
	objects, err := read(in)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	verdict := check(objects, *patience, *pictures)
	if err := json.NewEncoder(os.Stdout).Encode(verdict); err != nil {
		os.Exit(2)
	}
	if len(verdict.Illegal) > 0 {
		os.Exit(1)
	}
}
