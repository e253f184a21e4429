package maps

// modelSeeds is how many seeds the model plays for each number of replicas.
const modelSeeds = 120
