import java.io.*;
import java.nio.channels.*;
import java.util.concurrent.*;

/** A server that takes its listening socket from descriptor 0, and loses no request when it is stopped. */
class Server {
    public static void main(String[] args) throws Exception {
        var listener = (ServerSocketChannel) System.inheritedChannel();
        listener.configureBlocking(false); // the other generation may be faster to accept
        var selector = Selector.open();
        listener.register(selector, SelectionKey.OP_ACCEPT);
        var workers = Executors.newCachedThreadPool();
        var drained = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> { // TERM; the JVM is there until it returns
            selector.wakeup();
            try { drained.await(); } catch (InterruptedException e) { }
        }));
        new ProcessBuilder("crankctl", "notify", "READY=1").inheritIO().start().waitFor();

        while (selector.select() >= 0) {
            if (selector.selectedKeys().isEmpty()) break; // woken up
            selector.selectedKeys().clear();
            SocketChannel client = listener.accept();
            if (client != null) workers.execute(() -> serve(client));
        }
        workers.shutdown();
        workers.awaitTermination(25, TimeUnit.SECONDS);
        drained.countDown();
    }

    /** One request a connection. */
    static void serve(SocketChannel client) {
        try (client) {
            var in = new BufferedReader(new InputStreamReader(client.socket().getInputStream()));
            String request = in.readLine();
            for (String line = request; line != null && !line.isEmpty(); ) line = in.readLine();
            if (request == null) return;
            if (request.startsWith("GET /slow ")) Thread.sleep(2000);
            client.socket().getOutputStream().write(
                "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nversion 1\n".getBytes());
        } catch (IOException | InterruptedException e) {
            System.err.println(e);
        }
    }
}
