-- Adds a finished handshake to the log.
-- :at_ms integer (Unix ms), :domain, :source, :operation, :ending, :reason text
insert into handshakes (at_ms, domain, source, operation, ending, reason)
values (:at_ms, :domain, :source, :operation, :ending, :reason);
