// raft_reference replays what raft_reference_ours played on etcd's raft library, event by event, and compares term, vote,
// commit and log of each node. It reads the other side's output and prints what it compared; each difference that is by
// design is named and counted (README.md). Exit 1: they differ otherwise.
package main

import (
	"bufio"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
)

type line struct {
	text   string
	role   string
	commit int
	rest   string // all but the commit
	log    int    // entries
}

// "= 1 leads term 3 vote 1 commit 2 log 1:- 3:-"
func parse(text string) line {
	words := strings.Fields(text)
	if len(words) < 10 || words[0] != "=" {
		return line{text: text, rest: text}
	}
	commit, err := strconv.Atoi(words[8])
	if err != nil {
		return line{text: text, rest: text}
	}
	rest := strings.Join(append(append([]string{}, words[:8]...), words[9:]...), " ")
	return line{text, words[2], commit, rest, len(words) - 10}
}

type report struct {
	scripts, events, comparisons, entries, ended int
	exceptions                                   map[string]int
	avoided                                      map[string]int
}

// equal holds a node's two states against each other; the exception is named when they are equal but for it. What is committed
// may differ for who follows: never beyond what is committed at all, and not at all (strict) when nothing is delayed or lost.
func equal(ours, theirs line, committed int, strict bool) (bool, string) {
	switch {
	case ours.rest != theirs.rest:
		return false, ""
	case ours.commit == theirs.commit:
		return true, ""
	case ours.role == "leads" || strict || ours.commit > committed:
		return false, ""
	case ours.commit > theirs.commit:
		return true, "heartbeat_tells_the_whole_commit"
	default:
		return true, "commit_waits_for_what_agrees"
	}
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 1<<20), 1<<26)
	r := report{exceptions: map[string]int{}, avoided: map[string]int{}}
	var c *cluster
	var script, event string
	var history []string
	var ours, before []string
	different := false // this script's rest says nothing
	compare := func() {
		if c == nil || event == "" || different {
			return
		}
		theirs := c.state()
		committed, strict := 0, strings.HasPrefix(event, "beat ") && c.calm()
		for _, text := range theirs {
			committed = max(committed, parse(text).commit)
		}
		same := len(ours) == len(theirs)
		for i := 0; same && i < len(ours); i++ {
			a, b := parse(ours[i]), parse(theirs[i])
			ok, exception := equal(a, b, committed, strict && c.member(event, i+1))
			if exception != "" {
				r.exceptions[exception]++
			}
			r.comparisons++
			r.entries += a.log
			same = ok
		}
		if same {
			return
		}
		different = true
		r.ended++
		fmt.Printf("%s: after %d events, `%s`\n", script, len(history), event)
		if r.ended <= 3 {
			fmt.Printf("  events: %s\n", strings.Join(history, "; "))
			fmt.Printf("  before\n    %s\n  ours\n    %s\n  etcd's\n    %s\n", strings.Join(before, "\n    "), strings.Join(ours, "\n    "), strings.Join(theirs, "\n    "))
		}
	}
	for in.Scan() {
		text := in.Text()
		switch {
		case strings.HasPrefix(text, "script "):
			var nodes, voters int
			if _, err := fmt.Sscanf(text, "script %s nodes %d voters %d", &script, &nodes, &voters); err != nil {
				fmt.Fprintln(os.Stderr, "error: not a script:", text)
				os.Exit(2)
			}
			c, different, event, history, ours = newCluster(nodes, voters, r.exceptions), false, "", nil, nil
			r.scripts++
		case strings.HasPrefix(text, "> ") && c != nil:
			compare()
			event, before, ours = text[2:], ours, nil
			if different {
				continue
			}
			history = append(history, event)
			r.events++
			if err := c.apply(event); err != nil {
				fmt.Fprintln(os.Stderr, "error:", err)
				os.Exit(2)
			}
		case strings.HasPrefix(text, "= "):
			ours = append(ours, text)
		case strings.HasPrefix(text, "avoided "):
			words := strings.Fields(text)
			if count, err := strconv.Atoi(words[len(words)-1]); err == nil {
				r.avoided[words[1]] += count
			}
		case text == "end":
			compare()
			c = nil
		}
	}
	if err := in.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
	if c != nil {
		fmt.Printf("%s: ends in the middle, after `%s`\n", script, event)
		r.ended++
	}
	r.print()
	if r.scripts == 0 {
		fmt.Fprintln(os.Stderr, "error: there was no script to compare")
		os.Exit(2)
	}
	if r.ended > 0 {
		os.Exit(1)
	}
}

func (r report) print() {
	fmt.Printf("%d scripts, %d events, %d states of a node compared with %d entries; %d scripts differ\n", r.scripts, r.events, r.comparisons, r.entries, r.ended)
	for _, part := range []struct {
		title  string
		counts map[string]int
	}{{"differences by design, and how often they showed", r.exceptions}, {"events left out because the two are specified differently there", r.avoided}} {
		if len(part.counts) == 0 {
			continue
		}
		fmt.Printf("%s:\n", part.title)
		var names []string
		for name := range part.counts {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			fmt.Printf("  %-42s %d\n", name, part.counts[name])
		}
	}
}
