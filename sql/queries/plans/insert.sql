-- A new plan of a product.
-- named as the columns; :now_ms integer (Unix ms)
insert into plans (product_id, code, name, kind, device_limit, term_days, term_starts, features, updates_days,
                   created_at_ms)
values (:product_id, :code, :name, :kind, :device_limit, :term_days, :term_starts, :features, :updates_days,
        :now_ms);
