-- What the sweep looks at: one statement, one JSON document. Runs as postgres; times are seconds ago.
SET timezone = 'UTC';
WITH utc AS (SELECT now() AT TIME ZONE 'UTC' AS now)
SELECT jsonb_build_object(
  'accounts', (SELECT coalesce(jsonb_agg(v ORDER BY v.name), '[]') FROM (
     SELECT u.id, a.id AS account_id, a.username AS name, u.email AS address,
            nullif(u.unconfirmed_email, '') AS address_next,
            u.approved, u.disabled, u.confirmed_at IS NOT NULL AS confirmed, a.suspended_at IS NOT NULL AS suspended,
            -- People of single sign-on have theirs at the identity provider; 4.5 does not know require_2fa.
            coalesce((to_jsonb(r) ->> 'require_2fa')::boolean, true) AND u.encrypted_password <> ''
              AND NOT EXISTS (SELECT FROM public.identities d WHERE d.user_id = u.id) AS needs_factor,
            coalesce(u.encrypted_password, '') = ''
              AND NOT EXISTS (SELECT FROM public.identities d WHERE d.user_id = u.id) AS passwordless,
            a.moved_to_account_id IS NOT NULL AS moved,
            EXISTS (SELECT FROM public.account_statuses_cleanup_policies p WHERE p.account_id = a.id AND p.enabled) AS cleanup,
            nullif(r.name, '') AS role, (SELECT name FROM public.user_roles WHERE id = g.role_id) AS invited_role,
            u.otp_required_for_login OR EXISTS (SELECT FROM public.webauthn_credentials w WHERE w.user_id = u.id) AS factor,
            extract(epoch FROM now - u.created_at)::bigint AS age,
            extract(epoch FROM now - greatest(u.created_at, u.current_sign_in_at, t.used))::bigint AS unused,
            (SELECT coalesce(jsonb_agg(f ->> 'value'), '[]') FROM jsonb_array_elements(
               CASE jsonb_typeof(a.fields) WHEN 'array' THEN a.fields ELSE '[]' END) f
              WHERE f ->> 'verified_at' IS NOT NULL) AS links
       FROM utc, public.users u JOIN public.accounts a ON a.id = u.account_id
       LEFT JOIN public.user_roles r ON r.id = coalesce(u.role_id, -99)
       LEFT JOIN (SELECT DISTINCT ON (user_id) user_id, role_id FROM gov.invitation WHERE user_id IS NOT NULL
                   ORDER BY user_id, used_at DESC) g ON g.user_id = u.id
       LEFT JOIN LATERAL (SELECT max(k.last_used_at) AS used FROM public.oauth_access_tokens k
                           WHERE k.resource_owner_id = u.id) t ON true
      WHERE a.domain IS NULL) v),
  'tokens', (SELECT coalesce(jsonb_agg(v ORDER BY v.name, v.application), '[]') FROM (
     SELECT a.username AS name, u.email AS address, coalesce(o.name, '') AS application,
            array_agg(k.id) AS ids, min(k.scopes) AS scopes,
            extract(epoch FROM min(now - coalesce(k.last_used_at, k.created_at)))::bigint AS unused
       FROM utc, public.oauth_access_tokens k JOIN public.users u ON u.id = k.resource_owner_id
       JOIN public.accounts a ON a.id = u.account_id LEFT JOIN public.oauth_applications o ON o.id = k.application_id
      WHERE k.revoked_at IS NULL AND (k.expires_in IS NULL OR k.created_at + k.expires_in * interval '1 s' > now)
        AND NOT coalesce(o.superapp, false)
      GROUP BY 1, 2, 3) v),
  'invites', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', i.id, 'by', a.username) ORDER BY i.id), '[]')
       FROM utc, public.invites i JOIN public.users u ON u.id = i.user_id JOIN public.accounts a ON a.id = u.account_id
      WHERE (i.expires_at IS NULL OR i.expires_at > now) AND (i.max_uses IS NULL OR i.uses < i.max_uses)
        AND NOT EXISTS (SELECT FROM gov.invitation l WHERE l.invite_id = i.id AND l.revoked_at IS NULL
                           AND l.expires_at AT TIME ZONE 'UTC' >= i.expires_at AND i.max_uses = 1)),
  'drifted', (SELECT coalesce(jsonb_agg(item ORDER BY item), '[]') FROM gov.server_item i
                LEFT JOIN gov.server_live() l USING (item)
               WHERE i.release IS NULL OR l.state IS DISTINCT FROM i.state),
  'blocks_outside', (SELECT coalesce(jsonb_agg(domain ORDER BY domain), '[]') FROM public.domain_blocks b
               WHERE NOT EXISTS (SELECT FROM gov.server_item WHERE item = 'domain_block/' || b.domain)),
  'roles_outside', (SELECT coalesce(jsonb_agg(name ORDER BY name), '[]') FROM public.user_roles r
               -- Mastodon's seeds make one Owner; another role with the administrator permission is somebody's.
               WHERE id <> -99
                 AND id IS DISTINCT FROM (SELECT min(id) FROM public.user_roles WHERE name = 'Owner' AND permissions & 1 = 1)
                 AND NOT EXISTS (SELECT FROM gov.server_item WHERE item = 'role/' || r.name)),
  'domains', (SELECT coalesce(jsonb_agg(domain ORDER BY domain), '[]') FROM gov.staff_domain),
  'register', status -> 'organisations', 'settings', status -> 'settings', 'lock', status -> 'failed')
FROM (SELECT gov.status() AS status OFFSET 0) s;
