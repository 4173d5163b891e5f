-- Who can get into which account, and with what: one JSON list of all local accounts that have a user. Read as the
-- operator's role by `mastodon-gov people`, in one statement, whatever the number of accounts.
SELECT coalesce(jsonb_agg(jsonb_build_object(
    'handle', a.username, 'address', u.email, 'pending_address', u.unconfirmed_email,
    'state', CASE WHEN a.suspended_at IS NOT NULL THEN 'suspended' WHEN u.disabled THEN 'shut'
                  WHEN u.confirmed_at IS NULL THEN 'unconfirmed' WHEN NOT u.approved THEN 'waits for approval'
                  ELSE 'active' END,
    'role', r.name, 'password', coalesce(u.encrypted_password, '') <> '',
    'second_factor', CASE WHEN k.keys > 0 THEN 'key' WHEN u.otp_required_for_login THEN 'code' ELSE 'none' END,
    'identities', coalesce(i.identities, '[]'), 'sessions', coalesce(s.sessions, 0),
    'last_used', greatest(u.current_sign_in_at, s.seen, t.seen),
    'tokens', coalesce(t.tokens, '[]'), 'scheduled_posts', coalesce(p.posts, 0)) ORDER BY a.username), '[]')
FROM public.users u JOIN public.accounts a ON a.id = u.account_id
LEFT JOIN public.user_roles r ON r.id = u.role_id
LEFT JOIN (SELECT user_id, count(*) AS keys FROM public.webauthn_credentials GROUP BY 1) k ON k.user_id = u.id
LEFT JOIN (SELECT user_id, jsonb_agg(provider || ':' || uid ORDER BY id) AS identities FROM public.identities
            GROUP BY 1) i ON i.user_id = u.id
LEFT JOIN (SELECT user_id, count(*) AS sessions, max(updated_at) AS seen FROM public.session_activations
            GROUP BY 1) s ON s.user_id = u.id
LEFT JOIN (SELECT account_id, count(*) AS posts FROM public.scheduled_statuses GROUP BY 1) p ON p.account_id = a.id
LEFT JOIN (SELECT resource_owner_id, max(last_used_at) AS seen,
                  jsonb_agg(jsonb_build_object('application', o.name, 'superapp', coalesce(o.superapp, false),
                                               'scopes', x.scopes, 'last_used', x.last_used_at,
                                               'since', x.created_at) ORDER BY x.id) AS tokens
             FROM public.oauth_access_tokens x LEFT JOIN public.oauth_applications o ON o.id = x.application_id
            WHERE x.revoked_at IS NULL GROUP BY 1) t ON t.resource_owner_id = u.id
WHERE a.domain IS NULL;
