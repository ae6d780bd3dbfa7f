// This file lets signals.go declare functions without a body.
