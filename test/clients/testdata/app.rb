# An app in Ruby that talks by the gem sd_notify. GET / is answered at once, GET /hold when the client
# has sent one more byte. On TERM it finishes the connection that it has, and accepts no more.

require 'sd_notify'
require 'socket'

BODY = "generation #{ENV.fetch('CRANK_GENERATION')}\n"

raise 'the sockets are for another process' unless ENV.fetch('LISTEN_PID').to_i == Process.pid

listeners = (3...3 + ENV.fetch('LISTEN_FDS').to_i).map { |fd| Socket.for_fd(fd) }
stop, wake = IO.pipe
trap('TERM') { wake.write_nonblock('.') }

def serve(conn)
  request = +''
  request << conn.readpartial(4096) until request.include?("\r\n\r\n")
  conn.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: #{BODY.bytesize}\r\n\r\n")
  conn.read(1) if request.start_with?('GET /hold ')
  conn.write(BODY)
rescue EOFError
  # the client is gone
ensure
  conn.close
end

SdNotify.status('serving ruby')
SdNotify.ready
loop do
  readable, = IO.select([stop, *listeners])
  break if readable.include?(stop)

  readable.each do |listener|
    conn, = listener.accept_nonblock(exception: false)
    serve(conn) unless conn.nil? || conn == :wait_readable
  end
end
SdNotify.stopping
