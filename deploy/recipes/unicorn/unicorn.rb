require "sd_notify"

# The very address that crank holds.
listen "0.0.0.0:8080"
worker_processes 8
preload_app true
timeout 25 # below crank's -stop, 30 s
after_worker_ready { |_server, _worker| SdNotify.ready }
