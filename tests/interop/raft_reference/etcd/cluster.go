package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"slices"
	"strconv"
	"strings"

	raft "go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// An election timeout in ticks. Only leaders are ever ticked, once for each timeout that passes: a heartbeat by itself is far away.
const timeout = 1000

// Messages that wait for a term or vote to be durable; Tailrace keeps as many.
const outboxMax = 16

// Of messages that answer each other within one event, as on the other side.
const roundsMax = 10000

type linkState int

const (
	open linkState = iota
	held
	cut
)

type link struct {
	state linkState
	queue []pb.Message
}

// write is a MsgStorageAppend that waits for its disk.
type write struct {
	message pb.Message
	term    uint64 // of the node when it wrote this
	hard    bool   // another term or vote than before
}

type outgoing struct {
	message pb.Message
	term    uint64
}

// store is a MemoryStorage that knows its first members.
type store struct {
	*raft.MemoryStorage
	voters []uint64
}

func (s store) InitialState() (pb.HardState, pb.ConfState, error) {
	hard, members, err := s.MemoryStorage.InitialState()
	if len(members.Voters) == 0 {
		members.Voters = s.voters
	}
	return hard, members, err
}

// suffix of a log: what lies behind its first `base` entries.
type suffix struct {
	base, term uint64 // of the entry before
	entries    []pb.Entry
}

func (s *suffix) append(entries []pb.Entry) {
	for _, e := range entries {
		s.entries = append(s.entries[:e.Index-1-s.base], e)
	}
}

func (s *suffix) trim(to uint64) {
	s.term = s.entries[to-1-s.base].Term
	s.entries = s.entries[to-s.base:]
	s.base = to
}

type node struct {
	id      uint64
	raw     *raft.RawNode // nil: down
	disk    store
	stalled bool
	deaf    bool // stalled, and all writes are on the disk
	telling bool // in this event, what is on the disk already
	durable int  // of the writes, what is on the disk already
	writes  []write
	pending int          // of the writes, those with another term or vote
	outbox  []outgoing   // until those are durable
	hard    pb.HardState // as written last
	seen    suffix       // the log with what is not durable yet
	members pb.ConfState // as applied last
}

type cluster struct {
	nodes      []*node
	links      [][]link
	exceptions map[string]int
	restless   bool
	removing   uint64         // the member that this event removes
	handling   pb.MessageType // that is being delivered
}

func newCluster(nodes, voters int, exceptions map[string]int) *cluster {
	c := &cluster{links: make([][]link, nodes), exceptions: exceptions}
	var first []uint64
	for n := 1; n <= voters; n++ {
		first = append(first, uint64(n))
	}
	for n := 1; n <= nodes; n++ {
		c.links[n-1] = make([]link, nodes)
		c.nodes = append(c.nodes, &node{id: uint64(n), disk: store{raft.NewMemoryStorage(), first}})
		c.start(c.nodes[n-1])
	}
	return c
}

func (c *cluster) start(n *node) {
	if n.raw != nil {
		return
	}
	n.stalled, n.deaf = false, false
	n.hard, n.members, _ = n.disk.InitialState()
	n.seen = durable(n.disk)
	raw, err := raft.NewRawNode(&raft.Config{
		ID:                        n.id,
		ElectionTick:              timeout,
		HeartbeatTick:             timeout - 1,
		Storage:                   n.disk,
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             0, // one entry a message
		MaxCommittedSizePerReady:  1 << 30,
		MaxInflightMsgs:           1 << 16,
		CheckQuorum:               true,
		PreVote:                   true,
		DisableProposalForwarding: true,
		StepDownOnRemoval:         true,
		Logger:                    &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)},
	})
	if err != nil {
		panic(err)
	}
	n.raw = raw
	c.work(n)
}

func durable(disk store) suffix {
	first, _ := disk.FirstIndex()
	last, _ := disk.LastIndex()
	term, err := disk.Term(first - 1)
	if err != nil {
		panic(err)
	}
	s := suffix{base: first - 1, term: term}
	if last >= first {
		entries, err := disk.Entries(first, last+1, 1<<40)
		if err != nil {
			panic(err)
		}
		s.entries = append(s.entries, entries...)
	}
	return s
}

func (c *cluster) crash(n *node, kept bool) {
	if kept {
		for _, w := range n.writes[n.durable:] {
			persist(n.disk, w.message)
		}
	}
	n.writes, n.outbox, n.pending, n.durable = nil, nil, 0, 0
	n.raw = nil
}

func persist(disk store, m pb.Message) {
	if m.Snapshot != nil && !raft.IsEmptySnap(*m.Snapshot) {
		if err := disk.ApplySnapshot(*m.Snapshot); err != nil {
			panic(err)
		}
	}
	if m.Term != 0 {
		_ = disk.SetHardState(pb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit})
	}
	if err := disk.Append(m.Entries); err != nil {
		panic(err)
	}
}

func (n *node) leads() bool {
	return n.raw != nil && n.raw.BasicStatus().RaftState == raft.StateLeader
}

// tellsOnlyCommit: nothing but the commit is new to the receiver, unless a message was lost, which the next heartbeat shows.
func (n *node) tellsOnlyCommit(m pb.Message) bool {
	if m.Type != pb.MsgApp || len(m.Entries) > 0 {
		return false
	}
	to, known := n.raw.Status().Progress[m.To]
	return known && to.State == tracker.StateReplicate
}

func (n *node) commit() uint64 {
	if n.raw == nil {
		return 0
	}
	return n.raw.BasicStatus().Commit
}

func (n *node) term() uint64 { return n.raw.BasicStatus().Term }

// work carries out what the library asks for, until it asks for nothing more.
func (c *cluster) work(n *node) {
	for n.raw != nil {
		if n.raw.HasReady() {
			c.accept(n, n.raw.Ready())
			continue
		}
		told := n.telling && n.durable > 0
		if len(n.writes) == 0 || (n.stalled && !told) {
			return
		}
		w := n.writes[0]
		n.writes = n.writes[1:]
		if n.durable == 0 {
			persist(n.disk, w.message)
		} else {
			n.durable--
		}
		if w.hard {
			n.pending--
		}
		for _, m := range w.message.Responses {
			if m.To == n.id {
				_ = n.raw.Step(m)
			} else if w.term != n.term() {
				c.exceptions["answer_of_an_older_term_is_not_sent"]++
			} else if m.Type == pb.MsgAppResp && n.raw.BasicStatus().Lead != m.To {
				// It stands now, and forgot the leader; the next heartbeat reminds it.
				c.exceptions["pre_candidate_acknowledges_nothing"]++
			} else {
				c.post(n, m)
			}
		}
		c.speak(n)
	}
}

func (c *cluster) accept(n *node, ready raft.Ready) {
	term := n.term()
	var own []pb.Message
	var network []pb.Message
	for _, m := range ready.Messages {
		switch m.To {
		case raft.LocalApplyThread:
			for _, e := range m.Entries {
				if e.Type == pb.EntryConfChange {
					var change pb.ConfChange
					if err := change.Unmarshal(e.Data); err != nil {
						panic(err)
					}
					n.members = *n.raw.ApplyConfChange(change)
				}
			}
			own = append(own, m.Responses...)
		case raft.LocalAppendThread:
			var after []pb.Message
			for _, r := range m.Responses {
				// Nothing durable depends on a refusal, on a pre-vote, or on telling an old leader of a newer term; and a vote
				// waits for itself like all that is said after it, not for entries.
				if r.Reject || r.Type == pb.MsgPreVoteResp || r.Type == pb.MsgVoteResp && r.To != n.id || (r.Type == pb.MsgAppResp && r.Index == 0) {
					if n.stalled {
						c.exceptions["refusals_and_pre_votes_need_no_disk"]++
					}
					if r.To == n.id {
						own = append(own, r)
					} else {
						network = append(network, r)
					}
				} else {
					after = append(after, r)
				}
			}
			m.Responses = after
			hard := m.Term != 0 && (m.Term != n.hard.Term || m.Vote != n.hard.Vote)
			if m.Term != 0 {
				n.hard = pb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
			}
			if hard {
				n.pending++
			}
			if m.Snapshot != nil && !raft.IsEmptySnap(*m.Snapshot) {
				n.seen = suffix{base: m.Snapshot.Metadata.Index, term: m.Snapshot.Metadata.Term}
				n.members = m.Snapshot.Metadata.ConfState
			}
			n.seen.append(m.Entries)
			n.writes = append(n.writes, write{m, term, hard})
			if n.deaf {
				persist(n.disk, m)
				n.durable++
			}
		default:
			network = append(network, m)
		}
	}
	for _, m := range network {
		c.post(n, m)
	}
	for _, m := range own {
		_ = n.raw.Step(m)
	}
}

// post sends, once the newest term and vote are durable: a candidate whose own vote is not asks nobody.
func (c *cluster) post(n *node, m pb.Message) {
	if n.pending > 0 && c.handling == pb.MsgHeartbeat && (m.Type == pb.MsgAppResp || m.Type == pb.MsgHeartbeatResp) {
		// Tailrace leaves it to the next one: heartbeats of many groups are answered at once, or not at all.
		c.exceptions["heartbeat_before_the_term_is_durable_is_not_answered"]++
		return
	}
	n.outbox = append(n.outbox, outgoing{m, n.term()})
	if len(n.outbox) > outboxMax {
		n.outbox = n.outbox[1:]
		c.exceptions["what_waits_for_the_term_is_bounded"]++
	}
	c.speak(n)
}

func (c *cluster) speak(n *node) {
	if n.pending > 0 {
		return
	}
	for _, o := range n.outbox {
		if o.term != n.term() {
			continue // said in a term that it has left
		}
		l := &c.links[n.id-1][o.message.To-1]
		if o.message.Type == pb.MsgApp && o.message.To == c.removing {
			// In force from its append on, a removal is nothing that Tailrace tells the one removed.
			c.exceptions["removed_member_is_not_told"]++
			continue
		}
		if c.handling != pb.MsgHeartbeatResp && n.tellsOnlyCommit(o.message) {
			c.exceptions["commit_is_told_with_the_next_message"]++
			continue
		}
		if l.state != cut {
			l.queue = append(l.queue, o.message)
		}
	}
	n.outbox = nil
}

func (c *cluster) settle() {
	for round := 0; ; round++ {
		if round > roundsMax {
			c.restless = true
			return
		}
		type delivery struct {
			to       *node
			messages []pb.Message
		}
		var all []delivery
		for from := range c.links {
			for to := range c.links[from] {
				l := &c.links[from][to]
				if l.state == open && len(l.queue) > 0 {
					all = append(all, delivery{c.nodes[to], l.queue})
					l.queue = nil
				}
			}
		}
		if len(all) == 0 {
			return
		}
		for _, d := range all {
			for _, m := range d.messages {
				c.deliver(d.to, m)
			}
		}
	}
}

func (c *cluster) deliver(n *node, m pb.Message) {
	if n.raw == nil {
		return
	}
	c.handling = m.Type
	status := n.raw.BasicStatus()
	refuse := func(name string, answer pb.MessageType) {
		c.exceptions[name]++
		c.post(n, pb.Message{Type: answer, From: n.id, To: m.From, Term: status.Term, Reject: true})
	}
	switch {
	case m.Type == pb.MsgPreVote && m.Term == status.Term:
		// The library would grant it, if its vote is free; Tailrace tells that the term is taken.
		refuse("pre_vote_for_a_known_term_is_refused", pb.MsgPreVoteResp)
	case m.Type == pb.MsgVote && m.Term < status.Term:
		// The library is silent; the paper (figure 2) and Tailrace answer with the term.
		refuse("refusal_tells_the_term", pb.MsgVoteResp)
	case m.Type == pb.MsgSnap && m.Term < status.Term:
		// The same; an append it does answer.
		c.exceptions["refusal_tells_the_term"]++
		c.post(n, pb.Message{Type: pb.MsgAppResp, From: n.id, To: m.From, Term: status.Term})
	case m.Type == pb.MsgAppResp && m.Index == 0 && !m.Reject && m.Term == status.Term:
		// It answered a message of an older term; the library takes it for an acknowledgement of nothing, and sends the whole log.
		c.exceptions["notice_of_a_term_acknowledges_nothing"]++
	case (m.Type == pb.MsgVoteResp || m.Type == pb.MsgPreVoteResp) && m.Reject && m.Term == status.Term:
		// The library counts it against the candidacy of now, whichever it answered; Tailrace waits for the grants of this one.
		c.exceptions["refusal_does_not_end_a_candidacy"]++
	case m.Type == pb.MsgPreVoteResp && !m.Reject && m.Term == status.Term && status.RaftState == raft.StatePreCandidate:
		// A grant for the term that the candidate is in by now: the library counts it for the next one.
		c.exceptions["pre_vote_counts_for_its_ballot_only"]++
	case m.Type == pb.MsgSnap && !member(m.Snapshot.Metadata.ConfState, n.id):
		// The library ignores a snapshot of a place at which the receiver was no member yet: it gets one in which it is a learner.
		c.exceptions["snapshot_may_be_older_than_the_member"]++
		snapshot := *m.Snapshot
		snapshot.Metadata.ConfState.Learners = append(slices.Clone(snapshot.Metadata.ConfState.Learners), n.id)
		m.Snapshot = &snapshot
		_ = n.raw.Step(m)
	default:
		_ = n.raw.Step(m)
	}
	c.work(n)
	c.handling = pb.MsgHup
}

func member(state pb.ConfState, id uint64) bool {
	return slices.Contains(state.Voters, id) || slices.Contains(state.Learners, id)
}

func (c *cluster) apply(event string) error {
	words := strings.Fields(event)
	if words[0] == "heal" {
		for from := range c.links {
			for to := range c.links[from] {
				c.links[from][to].state = open
			}
		}
		c.settle()
		return nil
	}
	number := func(i int) int {
		if i >= len(words) {
			return 0
		}
		v, err := strconv.Atoi(words[i])
		if err != nil || v < 1 || v > len(c.nodes) {
			return 0
		}
		return v
	}
	a, b := number(1), number(2)
	if a == 0 {
		return fmt.Errorf("not an event: %q", event)
	}
	n := c.nodes[a-1]
	pair := func() (*link, *link) { return &c.links[a-1][b-1], &c.links[b-1][a-1] }
	switch words[0] {
	case "timeout", "age":
		if n.raw != nil && !n.leads() {
			for i := 0; i < timeout; i++ {
				n.raw.TickQuiesced()
			}
			if words[0] == "timeout" {
				_ = n.raw.Campaign()
			}
		}
	case "check":
		if n.leads() {
			for i := 0; i < timeout-1; i++ {
				n.raw.TickQuiesced()
			}
			n.raw.Tick()
		}
	case "beat":
		for i := 0; i < 3 && n.leads(); i++ {
			for id, to := range n.raw.Status().Progress {
				if to.State == tracker.StateSnapshot {
					n.raw.ReportSnapshot(id, raft.SnapshotFailure)
				}
			}
			_ = n.raw.Step(pb.Message{Type: pb.MsgBeat, From: raft.LocalAppendThread})
			c.work(n)
			c.settle()
		}
	case "propose":
		if n.leads() {
			_ = n.raw.Propose([]byte("v" + words[2]))
		}
	case "transfer":
		if n.leads() {
			n.raw.TransferLeader(uint64(b))
		}
	case "add", "promote", "demote", "remove":
		kind := map[string]pb.ConfChangeType{"add": pb.ConfChangeAddLearnerNode, "promote": pb.ConfChangeAddNode, "demote": pb.ConfChangeAddLearnerNode, "remove": pb.ConfChangeRemoveNode}[words[0]]
		if words[0] == "remove" {
			c.removing = uint64(b)
		}
		if n.leads() {
			_ = n.raw.ProposeConfChange(pb.ConfChange{Type: kind, NodeID: uint64(b)})
		}
	case "cut", "join":
		there, back := pair()
		for _, l := range []*link{there, back} {
			l.state = open
			if words[0] == "cut" {
				*l = link{state: cut}
			}
		}
	case "hold":
		there, _ := pair()
		there.state = held
	case "release", "twice", "backwards", "drop":
		there, _ := pair()
		switch words[0] {
		case "twice":
			var doubled []pb.Message
			for _, m := range there.queue {
				doubled = append(doubled, m, m)
			}
			there.queue = doubled
		case "backwards":
			for i, j := 0, len(there.queue)-1; i < j; i, j = i+1, j-1 {
				there.queue[i], there.queue[j] = there.queue[j], there.queue[i]
			}
		case "drop":
			there.queue = nil
		}
		if there.state == held {
			there.state = open
		}
	case "stall", "deafen":
		n.stalled = n.raw != nil
		n.deaf = n.stalled && words[0] == "deafen"
		for ; n.deaf && n.durable < len(n.writes); n.durable++ {
			persist(n.disk, n.writes[n.durable].message)
		}
	case "tell":
		n.deaf, n.telling = false, true
	case "flush":
		n.stalled, n.deaf = false, false
	case "crash":
		c.crash(n, words[2] == "kept")
	case "start":
		c.start(n)
	case "compact":
		if commit := n.commit(); n.raw != nil && !n.stalled && commit > n.seen.base {
			if _, err := n.disk.CreateSnapshot(commit, &n.members, nil); err != nil {
				return err
			}
			if err := n.disk.Compact(commit); err != nil {
				return err
			}
			n.seen.trim(commit)
		}
	default:
		return fmt.Errorf("not an event: %q", event)
	}
	c.work(n)
	n.telling = false
	c.settle()
	c.removing = 0
	return nil
}

// member: the leader that a `beat` names counts node n in.
func (c *cluster) member(event string, n int) bool {
	words := strings.Fields(event)
	leader, err := strconv.Atoi(words[1])
	if err != nil || !c.nodes[leader-1].leads() {
		return false
	}
	_, known := c.nodes[leader-1].raw.Status().Progress[uint64(n)]
	return known
}

// calm: nothing is delayed or lost.
func (c *cluster) calm() bool {
	for i, n := range c.nodes {
		if n.raw == nil || n.stalled {
			return false
		}
		for j := range c.nodes {
			if c.links[i][j].state != open {
				return false
			}
		}
	}
	return true
}

// state in the words of the other side.
func (c *cluster) state() []string {
	var out []string
	for _, n := range c.nodes {
		hard, _, _ := n.disk.InitialState()
		role, known := "down", durable(n.disk)
		if n.raw != nil {
			hard, role, known = n.raw.BasicStatus().HardState, "up", n.seen
			if n.leads() {
				role = "leads"
			}
		}
		var b bytes.Buffer
		fmt.Fprintf(&b, "= %d %s term %d vote %d commit %d log", n.id, role, hard.Term, hard.Vote, hard.Commit)
		if known.base > 0 {
			fmt.Fprintf(&b, " @%d:%d", known.base, known.term)
		}
		for _, e := range known.entries {
			label := string(e.Data)
			if e.Type == pb.EntryConfChange {
				label = "members"
			} else if len(e.Data) == 0 {
				label = "-"
			}
			fmt.Fprintf(&b, " %d:%s", e.Term, label)
		}
		out = append(out, b.String())
	}
	if c.restless {
		out = append([]string{"= messages without end"}, out...)
	}
	return out
}
