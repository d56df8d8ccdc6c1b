#!/bin/sh
# The guestbook's frontend, for busybox httpd: ?add=TEXT writes an entry through the leader's Service, anything
# else reads all of them through the followers'.
case $QUERY_STRING in
    add=*)
        answer=$(timeout 5 redis-cli -h "$REDIS_LEADER_SERVICE_HOST" rpush guestbook "${QUERY_STRING#add=}" 2>&1)
        ;;
    *) answer=$(timeout 5 redis-cli -h "$REDIS_FOLLOWER_SERVICE_HOST" lrange guestbook 0 -1 2>&1) ;;
esac
code=$?
[ "$code" = 0 ] || printf 'Status: 503 Service Unavailable\r\n'
printf 'Content-Type: text/plain\r\n\r\n%s\n' "$answer"
