module ringside.test/peers/h2spec

go 1.26

require (
	github.com/fatih/color v1.13.0
	github.com/spf13/cobra v1.4.0
	github.com/summerwind/h2spec v0.0.0
)

require (
	github.com/inconshreveable/mousetrap v1.0.0 // indirect
	github.com/mattn/go-colorable v0.1.9 // indirect
	github.com/mattn/go-isatty v0.0.14 // indirect
	github.com/spf13/pflag v1.0.5 // indirect
	golang.org/x/net v0.58.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/text v0.41.0 // indirect
)

replace github.com/summerwind/h2spec => ./upstream
