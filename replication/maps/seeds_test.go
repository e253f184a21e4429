package maps

import (
	"os"
	"strconv"
)

// seedsVariable says how many seeds the model plays for each number of replicas; a mutation may need more than the default.
const seedsVariable = "HACLUSTER_MODEL_SEEDS"

func modelSeeds() uint64 {
	if n, err := strconv.ParseUint(os.Getenv(seedsVariable), 10, 64); err == nil {
		return n
	}
	return 120
}
