// Command crank holds an app's sockets, runs it, and swaps it for a new version once that is ready.
package main

import "os"

func main() { os.Exit(run(os.Args[1:])) }
