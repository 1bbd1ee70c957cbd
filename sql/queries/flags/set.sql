-- Inserts or changes a feature flag.
-- :product_id integer, :name, :description text, :enabled 0 or 1, :share_percent integer, :now_ms integer (Unix ms)
insert into feature_flags (product_id, name, description, enabled, share_percent, updated_at_ms)
values (:product_id, :name, :description, :enabled, :share_percent, :now_ms)
on conflict (product_id, name) do update
set description = excluded.description, enabled = excluded.enabled, share_percent = excluded.share_percent,
    updated_at_ms = excluded.updated_at_ms;
