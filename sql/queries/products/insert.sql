-- Adds a product.
-- :slug text, :now_ms integer (Unix ms)
insert into products (slug, created_at_ms) values (:slug, :now_ms);
