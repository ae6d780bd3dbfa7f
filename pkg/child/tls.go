//go:build unix

package child

import (
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
)

// TLS returns a listener as [tls.NewListener] does. [Serve] takes it for HTTPS: HTTP/1.1 and HTTP/2, as
// srv.Protocols has it, whether or not config.NextProtos names them.
func TLS(ln net.Listener, config *tls.Config) net.Listener {
	return &tlsListener{tls.NewListener(ln, config), ln, config}
}

type tlsListener struct {
	net.Listener
	plain  net.Listener
	config *tls.Config
}

// secured is srv for HTTPS whose TLS is ours. To net/http the connections are plain ones, on which it finds HTTP/2
// by the client's first bytes.
func secured(srv *http.Server) *http.Server {
	http1, http2 := true, srv.TLSNextProto == nil
	if srv.Protocols != nil {
		http1, http2 = srv.Protocols.HTTP1(), srv.Protocols.HTTP2()
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(http1)
	protocols.SetUnencryptedHTTP2(http2)
	return &http.Server{
		Addr:                         srv.Addr,
		Handler:                      srv.Handler,
		DisableGeneralOptionsHandler: srv.DisableGeneralOptionsHandler,
		ReadTimeout:                  srv.ReadTimeout,
		ReadHeaderTimeout:            srv.ReadHeaderTimeout,
		WriteTimeout:                 srv.WriteTimeout,
		IdleTimeout:                  srv.IdleTimeout,
		MaxHeaderBytes:               srv.MaxHeaderBytes,
		ConnState:                    srv.ConnState,
		ErrorLog:                     srv.ErrorLog,
		BaseContext:                  srv.BaseContext,
		ConnContext:                  srv.ConnContext,
		HTTP2:                        srv.HTTP2,
		Protocols:                    protocols,
	}
}

// upgrade returns what makes a connection for srv. The handshake is made by whoever reads first, so that
// none waits for another.
func (l *tlsListener) upgrade(c *conns, srv *http.Server) func(net.Conn) net.Conn {
	config := sync.OnceValue(func() *tls.Config { return offering(l.config, srv) })
	return func(accepted net.Conn) net.Conn {
		secure := tls.Server(accepted, config())
		conn := c.follow(secure)
		conn.tls = secure
		conn.handshake = sync.OnceValue(func() error {
			err := secure.Handshake()
			state := secure.ConnectionState()
			if err == nil && state.NegotiatedProtocol == "h2" && state.Version < tls.VersionTLS12 {
				err = errors.New("HTTP/2 needs TLS 1.2") // RFC 9113, 9.2
			}
			if err != nil {
				logf(srv, "http: TLS handshake error from %s: %v", accepted.RemoteAddr(), err) // as net/http does
			}
			conn.tlsState = &state
			return err
		})
		return conn
	}
}

// offering is config with the protocols that srv speaks. srv serves: net/http has set HTTP/2 up, unless GODEBUG
// forbids it.
func offering(config *tls.Config, srv *http.Server) *tls.Config {
	config = config.Clone()
	config.NextProtos = slices.Clone(config.NextProtos)
	offer := func(name string, spoken bool) {
		switch i := slices.Index(config.NextProtos, name); {
		case spoken && i < 0:
			config.NextProtos = append(config.NextProtos, name)
		case !spoken && i >= 0:
			config.NextProtos = slices.Delete(config.NextProtos, i, i+1)
		}
	}
	offer("h2", srv.TLSNextProto["h2"] != nil)
	offer("http/1.1", srv.Protocols.HTTP1())
	return config
}

func logf(srv *http.Server, format string, args ...any) {
	if srv.ErrorLog != nil {
		srv.ErrorLog.Printf(format, args...)
		return
	}
	log.Printf(format, args...)
}
