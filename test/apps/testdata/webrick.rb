# WEBrick as its documentation stops it: on TERM it calls shutdown.
require "webrick"

server = WEBrick::HTTPServer.new(DoNotListen: true, AccessLog: [], Logger: WEBrick::Log.new($stderr, WEBrick::Log::WARN))
server.listeners << TCPServer.for_fd(3)
server.mount_proc("/") do |request, response|
  request.body if request.request_method == "POST"
  sleep 1.5 if request.path == "/slow"
  response.body = "hello from Ruby, generation #{ENV["CRANK_GENERATION"]}\n"
end
trap("TERM") { server.shutdown }
IO.for_fd(ENV["NOTIFY_FD"].to_i, "w").syswrite("READY=1")
server.start
