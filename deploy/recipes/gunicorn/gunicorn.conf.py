# No bind: gunicorn takes the socket that crank holds.
workers = 2
worker_class = "gthread"
threads = 8
preload_app = True  # READY=1 only once the app has been imported
graceful_timeout = 25  # below crank's -stop, 30 s
keepalive = 0  # a gthread worker that ends closes idle connections, with requests on their way
worker_tmp_dir = "/dev/shm"
