package main

import "fmt"

func main() { fmt.Println("built on a private base image") }
