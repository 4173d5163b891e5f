-- Ends everything by which these users get in or act later; account, posts and followers stay. psql variable users: an
-- array of user ids; links: of invites that end with them. One statement; answers counts and the channels of open streams. What Mastodon's own ways leave
-- alive: reference/identity-and-records.md §4. The password becomes a well-formed hash of what nobody knows: an empty or
-- ill-formed one opens other doors (§3).
WITH who AS (
    SELECT id, account_id FROM public.users WHERE id = ANY (:'users'::bigint[])
), cut_user AS (
    UPDATE public.users SET disabled = true, role_id = NULL, encrypted_password = '$2a$10$' || substr(translate(encode(
            sha512((gen_random_uuid()::text || gen_random_uuid()::text)::bytea), 'base64'), E'+=\n', '..'), 1, 53),
        reset_password_token = NULL, reset_password_sent_at = NULL, unconfirmed_email = NULL, confirmation_token = NULL,
        sign_in_token = NULL, otp_required_for_login = false, otp_secret = NULL, otp_backup_codes = NULL,
        consumed_timestep = NULL, webauthn_id = NULL, updated_at = now() AT TIME ZONE 'UTC'
     WHERE id IN (SELECT id FROM who) RETURNING id
), cut_keys AS (
    DELETE FROM public.webauthn_credentials WHERE user_id IN (SELECT id FROM who) RETURNING id
), cut_push AS (
    DELETE FROM public.web_push_subscriptions WHERE user_id IN (SELECT id FROM who) RETURNING id
), cut_grants AS (
    UPDATE public.oauth_access_grants SET revoked_at = now() AT TIME ZONE 'UTC'
     WHERE resource_owner_id IN (SELECT id FROM who) AND revoked_at IS NULL RETURNING id
), cut_tokens AS (
    UPDATE public.oauth_access_tokens SET revoked_at = now() AT TIME ZONE 'UTC'
     WHERE resource_owner_id IN (SELECT id FROM who) AND revoked_at IS NULL RETURNING id
), cut_sessions AS (
    DELETE FROM public.session_activations WHERE user_id IN (SELECT id FROM who) RETURNING id
), cut_invites AS (
    UPDATE public.invites SET expires_at = now() AT TIME ZONE 'UTC'
     WHERE (user_id IN (SELECT id FROM who) OR id = ANY (:'links'::bigint[]))
       AND (expires_at IS NULL OR expires_at > now() AT TIME ZONE 'UTC') RETURNING id
), cut_posts AS (
    DELETE FROM public.scheduled_statuses WHERE account_id IN (SELECT account_id FROM who) RETURNING id
)
SELECT jsonb_build_object(
  'cut', jsonb_build_object(
    'accounts', (SELECT count(*) FROM cut_user), 'sessions', (SELECT count(*) FROM cut_sessions),
    'tokens', (SELECT count(*) FROM cut_tokens), 'grants', (SELECT count(*) FROM cut_grants),
    'push_subscriptions', (SELECT count(*) FROM cut_push), 'security_keys', (SELECT count(*) FROM cut_keys),
    'invites', (SELECT count(*) FROM cut_invites), 'scheduled_posts', (SELECT count(*) FROM cut_posts)),
  'channels', (SELECT coalesce(jsonb_agg(channel), '[]') FROM (
      SELECT 'timeline:system:' || account_id FROM who
      UNION ALL SELECT 'timeline:access_token:' || id FROM cut_tokens) c(channel)));
