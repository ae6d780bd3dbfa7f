// This file lets origin.go declare a function without a body.
