-- Adds an entry to the audit log.
-- :audit_id integer, :at_ms integer (Unix ms), :action, :actor, :source, :subject, :before, :after text,
-- :salt, :payload_hash, :hash blob
insert into audit_log (audit_id, at_ms, action, salt, actor, source, subject, before, after, payload_hash, hash)
values (:audit_id, :at_ms, :action, :salt, :actor, :source, :subject, :before, :after, :payload_hash, :hash);
