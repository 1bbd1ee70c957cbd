-- Adds a finished handshake to the log.
-- :at_ms integer (Unix ms), :domain, :source, :operation, :outcome, :reason text, :license_id integer or null
insert into handshakes (at_ms, domain, source, operation, ending, reason, license_id)
values (:at_ms, :domain, :source, :operation, :outcome, :reason, :license_id);
