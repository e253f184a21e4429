package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hacluster/blockdev/frontend/attach"
	"hacluster/cmd/internal/api"
)

// postgres is a PostgreSQL whose data lies on one volume of a group and whose log on the other, each a file system on the local device
// of the primary. It runs in namespaces of its own, of mounts and processes: when these end, all of it is gone at once, as with the
// power of its machine.
type postgres struct {
	p    *powered
	dir  string // mount points and socket, the same on every node
	cmd  *exec.Cmd
	node string
}

// pgTools are what it takes. Debian has the server's programs outside of the path.
func pgTools(t *testing.T) (bin string) {
	t.Helper()
	all, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(all) == 0 {
		t.Skip("PostgreSQL is not installed: apt-get install postgresql, or make setup")
	}
	if err := exec.Command("id", "postgres").Run(); err != nil {
		t.Skip("there is no user postgres, whom the package postgresql makes")
	}
	return filepath.Dir(all[len(all)-1])
}

// serve is a database server's life in its namespaces. The first one makes the database. The shell stays, as root: with the death of
// the first process of a namespace all others die, and one that changes its user is told of no parent's death.
const serve = `set -e
mount -t ext4 "$1" "$3/data"; mount -t ext4 "$2" "$3/wal"
as="setpriv --reuid postgres --regid postgres --clear-groups"
if [ ! -d "$3/data/pg" ]; then
  chown postgres:postgres "$3/data" "$3/wal"
  $as "$4/initdb" -k -D "$3/data/pg" -X "$3/wal/pg" -U postgres -A trust --wal-segsize=1 --no-locale >/dev/null
fi
rm -f "$3/data/pg/postmaster.pid"
$as "$4/postgres" -D "$3/data/pg" -c listen_addresses= -c unix_socket_directories="$3" -c shared_buffers=1MB -c max_connections=8 \
  -c min_wal_size=2MB -c max_wal_size=8MB -c bgwriter_delay=10ms -c autovacuum=off -c jit=off
exit $?
`

func newPostgres(p *powered) *postgres {
	p.t.Helper()
	dir, err := os.MkdirTemp("", "hac-pg")
	if err != nil {
		p.t.Fatal(err)
	}
	d := &postgres{p: p, dir: dir}
	for _, sub := range []string{"", "data", "wal"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		d.gone()
		os.RemoveAll(dir)
	})
	return d
}

// start mounts both volumes on their primary, and returns when the database has recovered and answers.
func (d *postgres) start(node string) {
	d.p.t.Helper()
	out, err := os.OpenFile(d.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		d.p.t.Fatal(err)
	}
	defer out.Close()
	d.node = node
	d.cmd = exec.Command("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
		"sh", "-c", serve, "postgres", d.p.DeviceOf(node, Volume), d.p.DeviceOf(node, wal), d.dir, pgTools(d.p.t))
	d.cmd.Stdout, d.cmd.Stderr = out, out
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		d.p.t.Fatal(err)
	}
	deadline := time.Now().Add(2 * patience)
	for {
		got, err := d.ask("SELECT 1")
		if err == nil && got == "1" {
			return
		}
		if time.Now().After(deadline) || d.cmd.ProcessState != nil {
			d.p.t.Fatalf("PostgreSQL on %s does not answer (%v); its log ends: %s", node, err, d.log())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (d *postgres) logFile() string { return filepath.Join(d.p.cfg.Dir, "postgres.log") }

func (d *postgres) log() []byte {
	all, _ := os.ReadFile(d.logFile())
	return all[max(0, len(all)-3000):]
}

// gone ends all of it at once.
func (d *postgres) gone() {
	if d.cmd == nil || d.cmd.Process == nil {
		return
	}
	first, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", d.cmd.Process.Pid))
	if err != nil {
		d.p.t.Errorf("find the first process of the database's namespace: %v", err)
	}
	_ = d.cmd.Process.Kill() // and with it its child, the first process of the namespace, and all others
	_ = d.cmd.Wait()
	d.cmd = nil
	for deadline := time.Now().Add(patience); alive(strings.TrimSpace(string(first))); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.p.t.Errorf("what ran beside the database is not gone after %v", patience)
			break
		}
	}
	_ = os.Remove(filepath.Join(d.dir, ".s.PGSQL.5432"))
	_ = os.Remove(filepath.Join(d.dir, ".s.PGSQL.5432.lock"))
}

// alive reports whether a process runs: the first one of a namespace does until all others have ended.
func alive(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return pid != "" && err == nil && !bytes.Contains(stat, []byte(") Z "))
}

func (d *postgres) psql(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "psql", append([]string{"-X", "-q", "-A", "-t", "-h", d.dir, "-U", "postgres", "-v", "ON_ERROR_STOP=1"}, args...)...)
}

func (d *postgres) ask(sql string) (string, error) {
	ctx, cancel := d.p.within()
	defer cancel()
	out, err := d.psql(ctx, "-c", sql).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", sql, err, out)
	}
	return strings.TrimSpace(string(out)), err
}

func (d *postgres) must(sql string) string {
	d.p.t.Helper()
	got, err := d.ask(sql)
	if err != nil {
		d.p.t.Fatalf("%v; its log ends: %s", err, d.log())
	}
	return got
}

// inserting commits row after row, each when the one before is committed, until the database is gone.
type inserting struct {
	acked atomic.Int64 // the number of the last row whose commit was answered
	done  chan struct{}
}

func (d *postgres) insert(from int64) *inserting {
	d.p.t.Helper()
	w := &inserting{done: make(chan struct{})}
	w.acked.Store(from)
	cmd := d.psql(d.p.ctx)
	in, err := cmd.StdinPipe()
	if err != nil {
		d.p.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.p.t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		d.p.t.Fatal(err)
	}
	go func() {
		defer close(w.done)
		defer cmd.Wait()
		lines := bufio.NewReader(out)
		for n := from + 1; ; n++ {
			sql := fmt.Sprintf("BEGIN; INSERT INTO t VALUES (%d, repeat('x', 1000)); UPDATE c SET n = n + 1 WHERE k = %d %% 50; COMMIT; SELECT %[1]d;\n", n, n)
			if n%100 == 0 {
				sql = "CHECKPOINT; " + sql
			}
			if _, err := io.WriteString(in, sql); err != nil {
				return
			}
			line, err := lines.ReadString('\n')
			if got, bad := strconv.ParseInt(strings.TrimSpace(line), 10, 64); err != nil || bad != nil || got != n {
				return
			}
			w.acked.Store(n)
		}
	}()
	return w
}

func (w *inserting) await(t *testing.T, n int64) {
	t.Helper()
	deadline := time.Now().Add(2 * patience)
	for w.acked.Load() < n {
		select {
		case <-w.done:
			t.Fatalf("the client ended after row %d of %d", w.acked.Load(), n)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("row %d of %d is committed after %v", w.acked.Load(), n, 2*patience)
		}
	}
}

// rows is how many there are: all up to a number, by the table and by its index, and each counted once.
func (d *postgres) rows() int64 {
	d.p.t.Helper()
	const from = "FROM t"
	table := d.must("SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; SELECT count(*) || ' ' || coalesce(max(n), 0) || ' ' || count(DISTINCT n) || ' ' || coalesce(sum(length(pad)), 0) " + from)
	var count, last, distinct, bytes int64
	if _, err := fmt.Sscan(table, &count, &last, &distinct, &bytes); err != nil || count != last || distinct != last || bytes != 1000*last {
		d.p.t.Fatalf("the table is no prefix of what was committed: %q (rows, last, distinct, bytes), %v", table, err)
	}
	if got := d.must("SET enable_seqscan = off; SELECT count(*) " + from + " WHERE n > 0"); got != fmt.Sprint(last) {
		d.p.t.Fatalf("the index has %s rows, the table %d", got, last)
	}
	if got := d.must("SELECT coalesce(sum(n), 0) FROM c"); got != fmt.Sprint(last) {
		d.p.t.Fatalf("%s transactions are counted, %d are there", got, last)
	}
	return last
}

// devicesOn is a condition for until: the node serves both volumes and has their devices.
func devicesOn(node string) func(*api.Status) bool {
	return func(s *api.Status) bool {
		for _, v := range s.Volumes {
			if v.Device == "" {
				return false
			}
		}
		return primaryOfAll(node)(s)
	}
}

// cutMachine takes the power of a node: of its daemon, of what serves its devices, of the database on it, and of its disk.
func (p *powered) cutMachine(d *postgres, node string, seed uint64) {
	p.t.Helper()
	var servers []int
	for _, v := range []string{Volume, wal} {
		r, err := p.placeOf(node, v).Ask(p.ctx, attach.Request{Do: attach.DoStatus})
		if err != nil {
			p.t.Fatal(err)
		}
		servers = append(servers, r.PID)
	}
	p.Kill(node) // first: it would begin new servers
	for _, pid := range servers {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			p.t.Fatal(err)
		}
	}
	d.gone()
	for _, pid := range servers { // their files are open until then
		for deadline := time.Now().Add(patience); syscall.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				p.t.Fatalf("process %d behind a device of %s does not end", pid, node)
			}
		}
	}
	if _, err := p.disks[node].PowerCut(ways[seed%3], seed); err != nil {
		p.t.Fatalf("cut the power of %s: %v", node, err)
	}
	p.boot(node)
}

// images are the rescue images of a volume or group.
func (r *rig) images(of string) (all []api.RescueImage) {
	r.t.Helper()
	out, _ := r.admin(0, "volume", "rescue", "list", of, "-o", "json")
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		r.t.Fatal(err)
	}
	return all
}

// forgetImages deletes the rescue images of the group: of each power cut there is one.
func (r *rig) forgetImages() {
	r.t.Helper()
	for _, i := range r.images(Group) {
		_, errs := r.admin(3, "volume", "rescue", "delete", wal, i.ID, "--yes")
		r.says(errs, "an image of group", "rescue delete grp "+i.ID)
		r.admin(0, "volume", "rescue", "delete", Group, i.ID, "--yes")
	}
}

// R13: a database with its data on one volume and its log on another, in async, whose primary loses power: on the standby's copy it
// recovers to a prefix of its transactions, with nothing torn between the two. HACLUSTER_PGCUTS sets how many cuts.
func TestPostgreSQLOverTwoVolumesRecoversOnTheAsyncCopy(t *testing.T) {
	pgTools(t)
	if err := attach.Supported(); err != nil {
		t.Skipf("no device can be attached here: %v", err)
	}
	rounds := times(2, 6)
	if n, err := strconv.Atoi(os.Getenv("HACLUSTER_PGCUTS")); err == nil {
		rounds = n
	}
	p := power(t, Config{Mode: "async", More: []string{wal}, Attach: "fuse", Size: "160MiB", RTO: "3s", Extra: asyncBlock("64MiB", "60s")})
	p.start()
	d := newPostgres(p)
	node := p.until("healthy", allAre(api.VolumeHealthy)).Volumes[0].Primary
	p.until("the devices are there", devicesOn(node))
	for _, v := range []string{Volume, wal} {
		p.run("mkfs.ext4", "-q", "-F", p.DeviceOf(node, v))
	}
	d.start(node)
	d.must("CREATE TABLE t (n bigint PRIMARY KEY, pad text); CREATE TABLE c (k int PRIMARY KEY, n bigint); INSERT INTO c SELECT k, 0 FROM generate_series(0, 49) k; CHECKPOINT")
	kept, lost := int64(0), int64(0)
	for round := range rounds {
		w := d.insert(kept)
		w.await(t, kept+60+rand.Int64N(60))
		p.signal(syscall.SIGSTOP, other(node)) // it lacks something then, some of it in its sockets
		w.await(t, w.acked.Load()+rand.Int64N(100))
		p.cutMachine(d, node, uint64(round))
		p.signal(syscall.SIGCONT, other(node))
		<-w.done
		node = other(node)
		p.until("the standby took over, with the devices", devicesOn(node))
		d.start(node)
		was := kept
		kept = d.rows()
		acked := w.acked.Load()
		if kept < was {
			t.Fatalf("round %d: %d rows are there, there were %d when the standby was in sync", round, kept, was)
		}
		lost += max(0, acked-kept)
		t.Logf("round %d: %d rows committed, %d are there", round, acked, kept)
		p.start(other(node))
		p.until("healed", allAre(api.VolumeHealthy))
		p.forgetImages()
	}
	if lost == 0 && rounds > 2 {
		t.Error("no commit was lost: the standby never lacked anything, so this proves nothing")
	}
	t.Logf("%d power cuts, %d commits were answered and lost, as async may", rounds, lost)
	d.gone()
}
