-- The lock in the database, part 4: what the deploy made of `server:` in instance.yaml, so that the next one knows
-- without starting Rails whether anything differs (docs/decisions/settings-as-code.md).

-- `item`: setting/site_title, role/Moderator, rules … `wanted`: what the file said. `state`: what Mastodon's tables then
-- held. `release`: which release made it; null until it is made. A row stays until its item has been taken away again.
CREATE TABLE IF NOT EXISTS gov.server_item (
    item text PRIMARY KEY,
    wanted jsonb,
    state jsonb,
    release text,
    applied_at timestamptz
);

-- What Mastodon's tables hold of everything that can be an item. Whole rows: a column that a migration adds counts.
CREATE OR REPLACE FUNCTION gov.server_live() RETURNS TABLE (item text, state jsonb)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT 'setting/' || s.var, to_jsonb(s.value) FROM public.settings s;
    RETURN QUERY SELECT 'role/' || r.name, jsonb_agg(to_jsonb(r) - ARRAY['created_at', 'updated_at'] ORDER BY r.id)
      FROM public.user_roles r WHERE r.id <> -99 GROUP BY r.name;
    RETURN QUERY SELECT 'rules', coalesce(jsonb_agg(jsonb_build_object('text', r.text, 'hint', r.hint, 'translations',
               (SELECT coalesce(jsonb_object_agg(t.language, jsonb_build_array(t.text, t.hint)), '{}')
                  FROM public.rule_translations t WHERE t.rule_id = r.id)) ORDER BY r.priority, r.id), '[]')
      FROM public.rules r WHERE r.deleted_at IS NULL;
    RETURN QUERY SELECT 'terms', jsonb_agg(jsonb_build_array(t.effective_date, t.changelog, t.text)
               ORDER BY t.effective_date, t.id)
      FROM public.terms_of_services t WHERE t.published_at IS NOT NULL;
    RETURN QUERY SELECT 'domain_block/' || b.domain, to_jsonb(b) - ARRAY['created_at', 'updated_at']
      FROM public.domain_blocks b;
    RETURN QUERY SELECT 'announcement/' || md5(a.text), jsonb_agg(jsonb_build_array(a.starts_at, a.ends_at,
               a.published OR coalesce(a.ends_at < now() AT TIME ZONE 'UTC', false)) ORDER BY a.id)
      FROM public.announcements a GROUP BY md5(a.text);
    RETURN QUERY SELECT 'image/' || u.var, jsonb_build_array(u.file_file_name, u.file_file_size, u.file_updated_at)
      FROM public.site_uploads u;
    IF to_regclass('public.custom_emojis') IS NOT NULL THEN
        RETURN QUERY SELECT 'emoji/' || e.shortcode,
                   jsonb_build_array(e.image_file_name, e.image_file_size, e.image_updated_at, e.disabled)
          FROM public.custom_emojis e WHERE e.domain IS NULL;
    END IF;
END $$;

-- Everything that was made: as wanted, as made, and as it is now.
CREATE OR REPLACE FUNCTION gov.server_items() RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(i.item, jsonb_build_object('wanted', i.wanted, 'state', i.state,
                        'live', l.state, 'release', i.release)), '{}')
      FROM gov.server_item i LEFT JOIN gov.server_live() l USING (item)
$$;

-- Before Rails: what shall be made counts as ours from now on. Answers what is ours and no longer wanted.
CREATE OR REPLACE FUNCTION gov.server_begin(document jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO gov.server_item (item) SELECT jsonb_object_keys(document) ON CONFLICT DO NOTHING;
    UPDATE gov.server_item SET release = NULL WHERE document ? item;
    RETURN (SELECT coalesce(jsonb_agg(item ORDER BY item), '[]') FROM gov.server_item WHERE NOT document ? item);
END $$;

-- After Rails: this is how it looks when it is right.
CREATE OR REPLACE FUNCTION gov.server_done(document jsonb, by_release text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM gov.server_item WHERE NOT document ? item;
    UPDATE gov.server_item i SET wanted = document -> item, release = by_release, applied_at = now(),
           state = (SELECT l.state FROM gov.server_live() l WHERE l.item = i.item);
END $$;
