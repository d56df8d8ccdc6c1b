#!/bin/dash
# What v1's server answers to /cgi-bin/who: its client's address, as that end sees it. Run by busybox
# httpd, which writes an IPv4 client as IPv6 has it, and IPv6 in brackets.
client=${REMOTE_ADDR#"["}
client=${client%"]"}
printf 'Content-Type: text/plain\r\n\r\n%s\n' "${client#::ffff:}"
