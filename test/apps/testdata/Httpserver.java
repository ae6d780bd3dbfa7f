import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.ProtocolFamily;
import java.nio.channels.*;
import java.nio.channels.spi.*;
import java.util.concurrent.Executors;

/**
 * com.sun.net.httpserver as its users stop it: on TERM they call stop, with some seconds for what is under way.
 *
 * It cannot take a socket. So that what stop loses can be measured, it is made to: the ServerSocketChannel that it
 * opens is the inherited one, and it is told by reflection that this is bound.
 */
class Httpserver {
    public static void main(String[] args) throws Exception {
        System.setProperty("java.nio.channels.spi.SelectorProvider", Inherited.class.getName());
        byte[] hello = ("hello from Java, generation " + System.getenv("CRANK_GENERATION") + "\n").getBytes();
        var server = HttpServer.create();
        var field = server.getClass().getDeclaredField("server");
        field.setAccessible(true);
        var bound = field.get(server).getClass().getDeclaredField("bound");
        bound.setAccessible(true);
        bound.set(field.get(server), true);

        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", exchange -> {
            exchange.getRequestBody().readAllBytes();
            if (exchange.getRequestURI().getPath().equals("/slow")) {
                try { Thread.sleep(1500); } catch (InterruptedException e) { }
            }
            exchange.sendResponseHeaders(200, hello.length);
            exchange.getResponseBody().write(hello);
            exchange.close();
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(5)));
        server.start();
        new ProcessBuilder("crankctl", "notify", "READY=1").start().waitFor();
    }

    /** The JDK's own provider, but for the listening socket. */
    public static class Inherited extends SelectorProvider {
        final SelectorProvider jdk;

        public Inherited() throws ReflectiveOperationException {
            jdk = (SelectorProvider) Class.forName("sun.nio.ch.DefaultSelectorProvider").getMethod("get").invoke(null);
        }
        @Override public ServerSocketChannel openServerSocketChannel() throws IOException { return (ServerSocketChannel) jdk.inheritedChannel(); }
        @Override public AbstractSelector openSelector() throws IOException { return jdk.openSelector(); }
        @Override public SocketChannel openSocketChannel() throws IOException { return jdk.openSocketChannel(); }
        @Override public DatagramChannel openDatagramChannel() throws IOException { return jdk.openDatagramChannel(); }
        @Override public DatagramChannel openDatagramChannel(ProtocolFamily f) throws IOException { return jdk.openDatagramChannel(f); }
        @Override public Pipe openPipe() throws IOException { return jdk.openPipe(); }
    }
}
