-- What an account holds before it is shut: one JSON list. psql variable users: an array of user ids. No secret is in it:
-- no token, no password, no key. Rows as they are, so that a column more or less changes nothing here.
SELECT coalesce(jsonb_agg(jsonb_build_object(
  'account', a.username,
  'user', to_jsonb(u) - ARRAY['encrypted_password', 'reset_password_token', 'confirmation_token', 'sign_in_token',
                              'otp_secret', 'otp_backup_codes', 'webauthn_id', 'settings'],
  'role', (SELECT name FROM public.user_roles r WHERE r.id = u.role_id),
  'profile', to_jsonb(a) - ARRAY['private_key', 'public_key', 'keypair'],
  'sessions', (SELECT coalesce(jsonb_agg(to_jsonb(s) - 'session_id' ORDER BY s.id), '[]')
                 FROM public.session_activations s WHERE s.user_id = u.id),
  'sign_ins', (SELECT coalesce(jsonb_agg(to_jsonb(l) ORDER BY l.id), '[]')
                 FROM public.login_activities l WHERE l.user_id = u.id),
  'tokens', (SELECT coalesce(jsonb_agg(to_jsonb(t) - ARRAY['token', 'refresh_token'] ||
                      jsonb_build_object('application', o.name, 'website', o.website) ORDER BY t.id), '[]')
               FROM public.oauth_access_tokens t LEFT JOIN public.oauth_applications o ON o.id = t.application_id
              WHERE t.resource_owner_id = u.id),
  'grants', (SELECT coalesce(jsonb_agg(to_jsonb(g) - ARRAY['token', 'code_challenge'] ORDER BY g.id), '[]')
               FROM public.oauth_access_grants g WHERE g.resource_owner_id = u.id),
  'own_applications', (SELECT coalesce(jsonb_agg(to_jsonb(o) - 'secret' ORDER BY o.id), '[]')
                         FROM public.oauth_applications o WHERE o.owner_type = 'User' AND o.owner_id = u.id),
  'push_subscriptions', (SELECT coalesce(jsonb_agg(to_jsonb(w) - ARRAY['key_auth', 'key_p256dh'] ORDER BY w.id), '[]')
                           FROM public.web_push_subscriptions w WHERE w.user_id = u.id),
  'security_keys', (SELECT coalesce(jsonb_agg(to_jsonb(k) - 'public_key' ORDER BY k.id), '[]')
                      FROM public.webauthn_credentials k WHERE k.user_id = u.id),
  'archives', (SELECT coalesce(jsonb_agg(to_jsonb(b) ORDER BY b.id), '[]') FROM public.backups b WHERE b.user_id = u.id),
  'identities', (SELECT coalesce(jsonb_agg(to_jsonb(i) ORDER BY i.id), '[]')
                   FROM public.identities i WHERE i.user_id = u.id),
  'invites', (SELECT coalesce(jsonb_agg(to_jsonb(v) - 'code' ORDER BY v.id), '[]')
                FROM public.invites v WHERE v.user_id = u.id),
  'scheduled_posts', (SELECT coalesce(jsonb_agg(to_jsonb(p) ORDER BY p.id), '[]')
                        FROM public.scheduled_statuses p WHERE p.account_id = a.id)
) ORDER BY u.id), '[]')
FROM public.users u JOIN public.accounts a ON a.id = u.account_id WHERE u.id = ANY (:'users'::bigint[]);
