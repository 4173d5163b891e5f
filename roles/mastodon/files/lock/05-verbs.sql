-- The lock in the database, part 5: what the operator's verbs call. Arguments and answers are JSON, so that
-- addresses travel on stdin and never on a command line. A refusal is an answer: {"refusal": "sentence"},
-- and nothing was changed.

DROP FUNCTION IF EXISTS gov.sync_domains(text[]);

-- Makes the register hold exactly these organisations: [{"id": …, "state": …, "domains": […]}]; returns the domains
-- that were added and removed.
CREATE OR REPLACE FUNCTION gov.sync_organisations(wanted jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    added text[];
    removed text[];
BEGIN
    IF jsonb_path_exists(wanted, '$[*].domains[*]') IS NOT TRUE THEN
        RAISE 'The register of staff domains cannot be empty: name at least one domain in organisations.yaml.';
    END IF;
    INSERT INTO gov.organisation (id, state) SELECT o.id, o.state FROM jsonb_to_recordset(wanted) o(id text, state text)
        ON CONFLICT (id) DO UPDATE SET state = excluded.state WHERE organisation.state <> excluded.state;
    WITH gone AS (DELETE FROM gov.staff_domain
                   WHERE NOT jsonb_path_exists(wanted, '$[*].domains[*] ? (@ == $d)', jsonb_build_object('d', domain))
               RETURNING domain)
    SELECT coalesce(array_agg(domain ORDER BY domain), '{}') INTO removed FROM gone;
    WITH new AS (
        INSERT INTO gov.staff_domain (domain, organisation)
        SELECT d.domain, o.id FROM jsonb_to_recordset(wanted) o(id text, domains jsonb),
               jsonb_array_elements_text(o.domains) d(domain)
            ON CONFLICT (domain) DO UPDATE SET organisation = excluded.organisation
                WHERE staff_domain.organisation IS DISTINCT FROM excluded.organisation
        RETURNING domain, xmax = 0 AS fresh)
    SELECT coalesce(array_agg(domain ORDER BY domain) FILTER (WHERE fresh), '{}') INTO added FROM new;
    DELETE FROM gov.organisation WHERE NOT wanted @> jsonb_build_array(jsonb_build_object('id', id));
    RETURN jsonb_build_object('added', added, 'removed', removed);
END $$;

-- Living accounts with an address, or a pending one, at a domain of the register that is not wanted any more
-- ({"ids": […], "domains": […]}): how many, and names; by organisation where all of it goes, else by domain, with the
-- organisation that stays without it as `of`.
CREATE OR REPLACE FUNCTION gov.without_organisation(wanted jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(gone, jsonb_build_object('count', n, 'names', names, 'of', stays)), '{}') FROM (
        SELECT CASE WHEN wanted -> 'ids' ? d.organisation THEN d.domain
                    ELSE coalesce(d.organisation, d.domain) END AS gone,
               min(d.organisation) FILTER (WHERE wanted -> 'ids' ? d.organisation) AS stays,
               count(DISTINCT u.id) AS n, (array_agg(DISTINCT a.username ORDER BY a.username))[1:10] AS names
          FROM public.users u JOIN public.accounts a ON a.id = u.account_id
          JOIN gov.staff_domain d ON d.domain IN (split_part(lower(u.email COLLATE "C"), '@', 2),
                                                  split_part(lower(u.unconfirmed_email COLLATE "C"), '@', 2))
         WHERE u.approved AND NOT u.disabled AND a.suspended_at IS NULL AND NOT wanted -> 'domains' ? d.domain
         GROUP BY 1) o
$$;

-- Makes the settings exactly these ({"require_2fa": "true", "inviter": "it-desk"}); a missing key is removed.
CREATE OR REPLACE FUNCTION gov.sync_settings(wanted jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM gov.setting WHERE NOT wanted ? name;
    INSERT INTO gov.setting SELECT key, value FROM jsonb_each_text(wanted)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value;
    PERFORM gov.follow_up();
    RETURN (SELECT coalesce(jsonb_object_agg(name, value), '{}') FROM gov.setting);
END $$;

-- Records the names of the first deployment, or refuses other names later.
CREATE OR REPLACE FUNCTION gov.record_deployment(local_domain text, web_domain text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    first gov.deployment;
BEGIN
    INSERT INTO gov.deployment (local_domain, web_domain) VALUES ($1, $2) ON CONFLICT DO NOTHING;
    SELECT * INTO first FROM gov.deployment;
    IF (first.local_domain, first.web_domain) IS DISTINCT FROM ($1, $2) THEN
        RAISE 'This database was deployed with handle domain % and web domain %; the instance now says % and %. '
              'These names are part of every address ever sent out and cannot change: put the old ones back.',
              first.local_domain, first.web_domain, $1, $2;
    END IF;
    RETURN to_jsonb(first) - 'one';
END $$;

-- The account in whose name invitations are made, or a sentence why Mastodon would not honour its links.
CREATE OR REPLACE FUNCTION gov.inviter() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted text := gov.setting_of('inviter');
    found record;
BEGIN
    SELECT u.id, a.username, u.confirmed_at IS NOT NULL AND u.approved AND NOT u.disabled AND a.suspended_at IS NULL
           AND NOT a.memorial AND a.moved_to_account_id IS NULL AS active,
           coalesce((to_jsonb(r) ->> 'require_2fa')::boolean, false) AND NOT u.otp_required_for_login
           AND NOT EXISTS (SELECT FROM public.webauthn_credentials w WHERE w.user_id = u.id) AS lacks_factor
      INTO found
      FROM public.users u JOIN public.accounts a ON a.id = u.account_id
      LEFT JOIN public.user_roles r ON r.id = coalesce(u.role_id, -99)
     WHERE a.domain IS NULL
       AND CASE WHEN wanted IS NULL THEN r.permissions & 1 = 1 ELSE lower(a.username) = lower(wanted) END
     ORDER BY u.id LIMIT 1;
    IF found IS NULL THEN
        RAISE 'No account can invite: % does not exist on this server. Create it, then invite again.',
            coalesce('the inviter @' || wanted, 'an account with the administrator permission');
    ELSIF NOT found.active THEN
        RAISE 'The inviter @% is not an active account, so Mastodon would refuse its links: confirm, approve or '
              'unfreeze it, or name another inviter in instance.yaml.', found.username;
    ELSIF found.lacks_factor THEN
        RAISE 'The inviter @% has no second factor yet, so Mastodon would refuse its links: sign in as @%, set up '
              'the second factor, then invite again.', found.username, found.username;
    END IF;
    RETURN found.id;
END $$;

-- 16 letters and digits of the alphabet Mastodon itself uses (no 0 1 I O l), from PostgreSQL's strong random.
CREATE OR REPLACE FUNCTION gov.invite_code() RETURNS text
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    WITH pool AS (SELECT 'abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789' AS letters,
                         sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) AS noise)
    SELECT string_agg(substr(letters, 1 + get_byte(noise, n) % length(letters), 1), '')
      FROM pool, generate_series(0, 15) n
$$;

-- The role an invited account gets, by name; the administrator permission is never given by invitation.
CREATE OR REPLACE FUNCTION gov.invited_role(wanted text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ids bigint[] := ARRAY(SELECT id FROM public.user_roles WHERE name = wanted AND id <> -99);
BEGIN
    IF cardinality(ids) <> 1 THEN
        RAISE 'There are % roles named "%" on this server; an invitation needs exactly one.', cardinality(ids), wanted;
    ELSIF EXISTS (SELECT FROM public.user_roles WHERE id = ids[1] AND permissions & 1 = 1) THEN
        RAISE 'The role "%" has the administrator permission and cannot be given by invitation: invite without a '
              'role and let an owner assign it.', wanted;
    END IF;
    RETURN ids[1];
END $$;

CREATE OR REPLACE FUNCTION gov.invitation_answer(invitation gov.invitation, created boolean) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('created', created, 'id', invitation.id, 'address', invitation.address, 'code', i.code,
               'mailed_at', invitation.mailed_at, 'by', invitation.invited_by,
               'expires_at', invitation.expires_at, 'web_domain', (SELECT web_domain FROM gov.deployment))
      FROM public.invites i WHERE i.id = invitation.invite_id
$$;

CREATE OR REPLACE FUNCTION gov.invite(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    target text := lower(request ->> 'address' COLLATE "C");
    entry gov.invitation;
    body gov.organisation;
    role bigint := NULL;
    link bigint;
BEGIN
    SELECT o.* INTO body FROM gov.staff_domain d JOIN gov.organisation o ON o.id = d.organisation
     WHERE d.domain = split_part(target, '@', 2);
    IF gov.is_staff(target) IS NOT TRUE THEN
        RAISE 'The address % is not a staff address: its domain is not in the register. Add the domain to its '
              'organisation in organisations.yaml and deploy, or correct the address.', target;
    ELSIF EXISTS (SELECT FROM public.users WHERE lower(email COLLATE "C") = target) THEN
        RAISE 'The address % already has an account on this server.', target;
    ELSIF coalesce(btrim(request ->> 'organisation'), '') = '' OR coalesce(btrim(request ->> 'by'), '') = '' THEN
        RAISE 'An invitation needs an organisation and the person who invites.';
    ELSIF body.id IS DISTINCT FROM request ->> 'organisation' THEN
        RAISE 'The domain of % belongs to the organisation "%", not to "%": correct --organisation, or move the domain '
              'in organisations.yaml and deploy.', target, coalesce(body.id, 'none'), request ->> 'organisation';
    ELSIF body.state NOT IN ('approved', 'live') THEN
        RAISE 'The organisation "%" is %, and only an approved or live one gets new accounts: change its state in '
              'organisations.yaml and deploy.', body.id, body.state;
    END IF;
    IF request ->> 'role' <> '' THEN
        role := gov.invited_role(request ->> 'role');
    END IF;
    UPDATE gov.invitation SET revoked_at = now(), revoked_by = 'expired'
     WHERE address = target AND used_at IS NULL AND revoked_at IS NULL AND expires_at <= now();
    SELECT * INTO entry FROM gov.invitation WHERE address = target AND used_at IS NULL AND revoked_at IS NULL;
    -- "Deactivate all" in the admin pages, or another inviter since: the link leads nowhere, or belongs to the wrong one.
    IF FOUND AND NOT EXISTS (SELECT FROM public.invites WHERE id = entry.invite_id AND user_id = gov.inviter()
                                AND expires_at > now() AT TIME ZONE 'UTC') THEN
        UPDATE gov.invitation SET revoked_at = now(), revoked_by = 'closed in Mastodon' WHERE id = entry.id;
        UPDATE public.invites SET expires_at = now() AT TIME ZONE 'UTC' WHERE id = entry.invite_id;
        entry := NULL;
    END IF;
    IF entry.id IS NOT NULL AND (entry.organisation, coalesce(entry.role_id, 0)) = (request ->> 'organisation', coalesce(role, 0)) THEN
        RETURN gov.invitation_answer(entry, false);
    ELSIF entry.id IS NOT NULL THEN
        RAISE 'The address % has an open invitation with another organisation or role: revoke it first.', target;
    END IF;
    -- Born expired (not in the ledger yet), opened by the second statement.
    INSERT INTO public.invites (user_id, code, max_uses, uses, autofollow, expires_at, created_at, updated_at)
    SELECT gov.inviter(), gov.invite_code(), 1, 0, false, utc, utc, utc FROM (VALUES (now() AT TIME ZONE 'UTC')) t(utc)
    RETURNING id INTO link;
    INSERT INTO gov.invitation (address, organisation, role_id, invited_by, why, invite_id, expires_at)
    VALUES (target, request ->> 'organisation', role, request ->> 'by', coalesce(request ->> 'why', ''), link,
            now() + interval '72 hours')
    RETURNING * INTO entry;
    UPDATE public.invites SET expires_at = entry.expires_at AT TIME ZONE 'UTC' WHERE id = link;
    RETURN gov.invitation_answer(entry, true);
EXCEPTION WHEN raise_exception THEN
    RETURN jsonb_build_object('refusal', SQLERRM);
END $$;

-- Closes the open invitation of an address; its link is dead at once. Revoking twice changes nothing.
CREATE OR REPLACE FUNCTION gov.revoke(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    target text := lower(request ->> 'address' COLLATE "C");
    link bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM gov.invitation WHERE address = target) THEN
        RETURN jsonb_build_object('refusal', format('The address %s was never invited: see the list of invitations.', target));
    END IF;
    UPDATE gov.invitation SET revoked_at = now(), revoked_by = request ->> 'by'
     WHERE address = target AND used_at IS NULL AND revoked_at IS NULL RETURNING invite_id INTO link;
    UPDATE public.invites SET expires_at = now() AT TIME ZONE 'UTC' WHERE id = link;
    RETURN jsonb_build_object('revoked', link IS NOT NULL, 'address', target);
END $$;

-- Notes that the relay is about to get the mail ({"id": 1, "mailed": true}), or did not take it (false). Answers
-- whether anything changed: of two who send at the same time, one is told no.
CREATE OR REPLACE FUNCTION gov.mailed(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
BEGIN
    UPDATE gov.invitation SET mailed_at = CASE WHEN (request ->> 'mailed')::boolean THEN now() END
     WHERE id = (request ->> 'id')::int AND (mailed_at IS NULL) = (request ->> 'mailed')::boolean;
    RETURN jsonb_build_object('changed', FOUND);
END $$;

CREATE OR REPLACE FUNCTION gov.invitations() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    SELECT coalesce(jsonb_agg(to_jsonb(v) ORDER BY v.id), '[]') FROM (
        SELECT i.id, i.address, i.organisation, r.name AS role, i.invited_by AS by, i.why, i.created_at, i.expires_at, i.mailed_at,
               CASE WHEN i.used_at IS NOT NULL THEN 'used'
                    WHEN i.revoked_at IS NOT NULL AND i.revoked_by <> 'expired' THEN 'revoked'
                    WHEN i.expires_at <= now() OR i.revoked_at IS NOT NULL THEN 'expired' ELSE 'open' END AS state
          FROM gov.invitation i LEFT JOIN public.user_roles r ON r.id = i.role_id) v
$$;
