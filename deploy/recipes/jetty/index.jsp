<%@ page contentType="text/plain" session="false" trimDirectiveWhitespaces="true" %>
<%! public void jspInit() { // once, at the start: see load-on-startup in web.xml
        try {
            new ProcessBuilder("crankctl", "notify", "READY=1").inheritIO().start().waitFor();
        } catch (Exception e) {
            throw new IllegalStateException("cannot say READY=1", e);
        }
    } %>
<% if (request.getServletPath().equals("/slow")) Thread.sleep(2000); %>
<%= application.getInitParameter("greeting") %>
