# The very address that crank holds.
bind "tcp://0.0.0.0:8080"
environment "production"
threads 8, 8
queue_requests false
workers 2
preload_app!
