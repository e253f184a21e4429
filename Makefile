# hacluster: two servers mirror each other's disks. `make` lists the targets.
SHELL     := /bin/bash
GO        ?= go
# One set for all that calls go, so that what one of them has compiled the next one takes from the cache.
export GOFLAGS     := -trimpath -buildvcs=false
export CGO_ENABLED := 0
VERSION   ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS   := -s -w -buildid= -X main.version=$(VERSION)
LONG      ?= 20000
SEED      ?=
SECONDS_EACH ?= 60
MINUTES   ?= 10
LAB_OUT   ?= bin/lab-results

comma     := ,

.DEFAULT_GOAL := help
.PHONY: help build man setup lint test test-long model mutations ring3 fuzz failpoints growcuts groupcuts resynckills demo bench bench-standbys bench-busy bench-failover bench-resync bench-reads bench-idle bench-volumes calm powercuts matrix-ci matrix soak failovers doubles mutants proto clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## the static binaries bin/haclusterd and bin/ha-admin
	$(GO) build -ldflags "$(LDFLAGS)" -o bin/ ./cmd/haclusterd ./cmd/ha-admin

man: build ## the manual pages of both programs, in bin/man/man8
	bin/ha-admin man bin/man/man8
	cp docs/haclusterd.8 bin/man/man8/

setup: ## install what tests, demo and benchmarks use (Debian packages; needs root only if something is missing)
	@scripts/setup.sh

lint: ## gofmt, go vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt would change: $$out"; exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=scripts/tools/lint/go.mod staticcheck ./...

test: setup build ## what decides whether a change may land, with make lint and make matrix-ci
	scripts/test.sh

test-long: setup build ## make test with every variant of each case, 20,000 seeds of the model and of the primary's schedules, and all mutations
	HACLUSTER_LONG=1 scripts/test.sh

model: ## run the model of the protocol; SEED=n replays one run with its trace
	$(GO) test ./cmd/internal/sim -run 'TestModel$$' -count=1 $(if $(SEED),-v -seed=$(SEED),)

mutations: ## break each rule on purpose and see the model catch it
	HACLUSTER_MUTATIONS=1 $(GO) test ./cmd/internal/sim -run TestMutations -count=1 -v -timeout 2h

ring3: ## whole nodes in virtual time: HOURS (1) hours of faults, which take about a minute each; SEED=n draws the same faults
	$(GO) test ./cmd/internal/ring3 -run TestHoursOfFaults -count=1 -v -timeout 24h -args -hours=$(or $(HOURS),1) -bound=0 $(if $(SEED),-seed=$(SEED),)

fuzz: ## every fuzz target, SECONDS_EACH (60) seconds each
	scripts/fuzz.sh $(SECONDS_EACH)

failpoints: build ## crash each node of a real cluster at every fail point, half of the time with its power cut (root)
	HACLUSTER_BIN=$(CURDIR)/bin HACLUSTER_FAILPOINTS=all $(GO) test ./cmd/internal/e2e -run TestK109CrashAtFailPoints -count=1 -v -timeout 90m

growcuts: build ## crash each node at every fail point of a growth and a shrink, half of the time with its power cut: ROUNDS (5) of each (root)
	HACLUSTER_BIN=$(CURDIR)/bin HACLUSTER_GROWCUTS=$(or $(ROUNDS),5) $(GO) test ./cmd/internal/e2e -run TestK110PowerCutsInAGrowth -count=1 -v -timeout 90m

powercuts: ## cut the power of one or both of two replicas at named points: SEEDS (1000) histories, one again with SEED=n, all in one mode with MODE=async
	HACLUSTER_POWERCUTS=$(or $(SEEDS),1000) $(if $(MODE),HACLUSTER_POWERCUT_MODE=$(MODE),) $(if $(SEED),HACLUSTER_POWERCUT_SEED=$(SEED),) $(GO) test -tags failpoints ./replication -run TestK110PowerCuts -count=1 -v -timeout 2h

groupcuts: build ## cut the power of a PostgreSQL's machine, its data and its log on two volumes of a group in async, CUTS (50) times: about 12 minutes (root)
	HACLUSTER_BIN=$(CURDIR)/bin HACLUSTER_PGCUTS=$(or $(CUTS),50) $(GO) test ./cmd/internal/e2e -run TestPostgreSQLOverTwoVolumes -count=1 -v -timeout 90m

resynckills: build ## kill the primary at KILLS (200) random points of a resync, and look at what its target returns to
	HACLUSTER_BIN=$(CURDIR)/bin HACLUSTER_RESYNC_KILLS=$(or $(KILLS),200) $(GO) test ./cmd/internal/e2e -run TestPrimaryKilledInAResync -count=1 -v -timeout 4h

demo: setup build ## three daemons, real data, the primary killed: under a minute, no root needed
	$(GO) run ./cmd/internal/e2e/demo -bin bin

bench: setup build ## speed beside a QEMU mirror in the same run, on tmpfs
	scripts/bench/bench.sh

bench-standbys: setup build ## speed with 0, 1, 2 and 3 standbys in one run, as a table and a plot
	scripts/bench/standbys.sh

bench-busy: setup build ## speed with 1, 10 and 100 busy volumes, what each of them gets, and small writes beside large ones: as a table and a plot
	scripts/bench/busy.sh

bench-failover: setup build ## 50 failovers by SIGKILL under load, and their distribution
	$(GO) run ./cmd/internal/e2e/failoverbench -bin bin

bench-resync: setup build ## speed of a resync beside dd, what it copies and compares, what the maps cost: 6 minutes; D=folder
	$(GO) build -tags bench_unmarked -o bin/unmarked/ ./cmd/haclusterd ./cmd/ha-admin
	$(GO) run ./cmd/internal/e2e/resyncbench -bin bin -unmarked bin/unmarked -d "$(or $(D),/var/tmp)"

bench-reads: setup build ## random reads with read = "local" and "balance" in turns, on slow disks and on fast ones: two minutes (root)
	$(GO) build -o bin/hadisk ./cmd/internal/lab/disk/hadisk
	$(GO) run ./cmd/internal/e2e/readbench -bin bin

bench-idle: setup build ## what each daemon of an idle cluster takes of a core, its switches and system calls; OLD=folder of other binaries
	$(GO) run ./cmd/internal/e2e/idlebench -bin bin$(if $(OLD),$(comma)$(OLD),)

bench-volumes: setup build ## idle CPU, memory and failover with 1, 10, 100 and 1,000 volumes: three minutes; N=numbers
	$(GO) run ./cmd/internal/e2e/volumesbench -bin bin $(if $(N),-n $(N),)

calm: setup build ## ten minutes of stress on both cores: no failover may happen
	$(GO) run ./cmd/internal/e2e/failoverbench -bin bin -calm 10m

matrix-ci: setup build ## the most telling faults on a network of namespaces: under 5 minutes; needs root, else skipped with the reason
	scripts/lab matrix-ci --out $(LAB_OUT)/matrix-ci $(if $(SEED),--seed $(SEED),) || [ $$? -eq 3 ]

matrix: setup build ## every fault and phase there is, with a table and JSON in LAB_OUT (bin/lab-results)
	scripts/lab matrix --out $(LAB_OUT)/matrix $(if $(SEED),--seed $(SEED),)

soak: setup build ## random faults for MINUTES (10) in one cluster; SEED=n replays the order
	scripts/lab soak --minutes $(MINUTES) --out $(LAB_OUT)/soak $(if $(SEED),--seed $(SEED),)

failovers: setup build ## 100 failovers in a row: kill, pause, cut and power cut in turn
	scripts/lab failovers --out $(LAB_OUT)/failovers $(if $(SEED),--seed $(SEED),)

doubles: setup build ## two of three replicas fail one after the other, COUNT (200) times in ways drawn at random; SEED=n draws the same
	scripts/lab doubles --count $(or $(COUNT),200) --out $(LAB_OUT)/doubles $(if $(SEED),--seed $(SEED),)

mutants: setup build ## daemons that break one rule each, and the faults that must notice: about 5 minutes
	scripts/lab mutants --out $(LAB_OUT)/mutants $(if $(SEED),--seed $(SEED),)

proto: ## regenerate the code of proto/
	scripts/tools/proto/generate.sh

clean: ## remove what was built
	rm -rf bin
