module ringside.test/peers/dapr

go 1.26.4

require github.com/dapr/dapr v1.18.1

// scripts/peers unpacks the released module here, beside the copy of this file that it builds from:
// the one file it swaps (components.go.in) may not be written into the module cache.
replace github.com/dapr/dapr => ./upstream

// v0.12.5, which dapr 1.18.1 names, cannot be fetched through the module proxy.
replace github.com/diagridio/go-etcd-cron => github.com/diagridio/go-etcd-cron v0.12.6
