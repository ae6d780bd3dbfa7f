run lambda { |env|
  sleep 2 if env["PATH_INFO"] == "/slow" # so that you can see it drain
  [200, { "Content-Type" => "text/plain" }, ["version 1\n"]]
}
