# puma as it comes, but with a thread for every client: on TERM it stops by itself.
threads 32, 32
environment "production"
app do |env|
  env["rack.input"].read
  sleep 1.5 if env["PATH_INFO"] == "/slow"
  [200, {}, ["hello from Ruby, generation #{ENV["CRANK_GENERATION"]}\n"]]
end
