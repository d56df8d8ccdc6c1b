#!/usr/bin/perl -w
# A DNS server over UDP that answers every question for an A record by one address, and a client that asks once and
# waits two seconds (RFC 1035, section 4.1). They use no modules, not even strict: perl alone is in the image.
#
# Usage: names.pl serve PORT ADDRESS
#        names.pl ask SERVER TIMES    prints each answer's address

my ( $what, @words ) = @ARGV;

# AF_INET and SOCK_DGRAM; and a sockaddr_in.
sub datagrams { socket my $socket, 2, 2, 0 or die "socket: $!\n"; return $socket }
sub bytes_of  { return pack 'C4', split /[.]/, shift }
sub end_at    { return pack 'S n a4 x8', 2, @_ }

sub serve {
    my ( $port, $address ) = @_;
    my $server = datagrams();
    bind $server, end_at( $port, bytes_of('0.0.0.0') ) or die "bind: $!\n";
    while ( my $client = recv $server, my $query, 512, 0 ) {
        next unless length $query > 12;
        my ( $id, $flags ) = unpack 'n2', $query;
        # A name, its type and its class.
        my ($question) = substr( $query, 12 ) =~ /\A((?:[^\0].*?)?\0.{4})/s or next;
        my $is_a = unpack( 'n', substr $question, -4 ) == 1;
        # A response; recursion is available, and desired if the query says so.
        my $header = pack 'n6', $id, 0x8080 | $flags & 0x0100, 1, $is_a ? 1 : 0, 0, 0;
        # The question's name, A, IN, a minute.
        my $record = $is_a ? pack( 'n3 N n', 0xc00c, 1, 1, 60, 4 ) . bytes_of($address) : '';
        send $server, $header . $question . $record, 0, $client;
    }
    die "recv: $!\n";
}

sub ask {
    my ( $server, $times ) = @_;
    for my $id ( 1 .. $times ) {
        my $client = datagrams();
        connect $client, end_at( 53, bytes_of($server) ) or die "connect: $!\n";
        send $client, pack( 'n6 C/a* C/a* x n2', $id, 0x0100, 1, 0, 0, 0, 'who', 'example', 1, 1 ), 0;
        vec( my $ready = '', fileno $client, 1 ) = 1;
        select $ready, undef, undef, 2 or die "query $id of $times is not answered\n";
        defined recv $client, my $answer, 512, 0 or die "query $id of $times: $!\n";
        unpack( 'n', $answer ) == $id or die "query $id of $times has another's answer\n";
        print join( '.', unpack 'C4', substr $answer, -4 ), "\n";
    }
}

if    ( $what eq 'serve' ) { serve(@words) }
elsif ( $what eq 'ask' )   { ask(@words) }
else                       { die "names.pl serve PORT ADDRESS, or names.pl ask SERVER TIMES\n" }
