// Command hello is the smallest program in Go that says something: what any probe in Go costs at least.
package main

import "fmt"

func main() { fmt.Println("ready") }
