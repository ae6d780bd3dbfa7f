package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// lineLength is in bytes, with the newline.
const lineLength = 100

// block is what is written at once where lines are not written one by one: what a pipe holds.
const block = 64 << 10

// lines is `actor lines N each|block`: it writes N lines of 100 bytes to stdout, one by one or in blocks.
func lines(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	line := append(bytes.Repeat([]byte("0123456789"), lineLength/10)[:lineLength-1], '\n')
	if args[1] == "each" {
		for range n {
			if _, err := os.Stdout.Write(line); err != nil {
				return err
			}
		}
		return nil
	}
	if args[1] != "block" {
		return fmt.Errorf("%q is neither each nor block", args[1])
	}
	all := bytes.Repeat(line, block/lineLength)
	for left := n * lineLength; left > 0; left -= len(all) {
		if _, err := os.Stdout.Write(all[:min(left, len(all))]); err != nil {
			return err
		}
	}
	return nil
}
