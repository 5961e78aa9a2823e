"""What GUNICORN_CONF has to say on each host of workers behind proxy-protocol.cfg, or nginx's proxy-protocol.conf.

ALLOWED_CALLERS, where it is set, has to name both the proxy and the panels.
"""

# HAProxy can send either version, nginx sends the first.
proxy_protocol = "auto"
# The address from which the proxy connects; a caller who sends the header from elsewhere is answered 400.
proxy_allow_ips = "192.0.2.10"
