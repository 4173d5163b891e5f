-- The lock in the database, part 6: the ledger of accounts that were shut, for files/leaving.py. These functions write
-- to schema gov only; what they decide is carried out by the operator's own role, in the same transaction: postgres
-- never writes to tables where code of another role could run.

-- Users who came with an invitation for one of these addresses, or were given their account under it: also those who
-- have changed the address since. An account that was handed to somebody else is not the first person's any more.
CREATE OR REPLACE FUNCTION gov.users_invited(addresses text[]) RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT user_id FROM (
        SELECT DISTINCT ON (user_id) user_id, address FROM (
            SELECT user_id, address, used_at FROM gov.invitation WHERE user_id IS NOT NULL
            UNION ALL SELECT user_id, handed_to, lifted_at FROM gov.lockdown WHERE handed_to IS NOT NULL
        ) given(user_id, address, at) ORDER BY user_id, at DESC) latest
     WHERE address = ANY (SELECT lower(a COLLATE "C") FROM unnest(addresses) a)
$$;

-- Notes that these users are shut: {"users": [1, 2], "addresses": […], "verb", "by", "why", "evidence"}. An account
-- that is shut already keeps its first row, and with it the role that `handback` restores. `links`: the invites whose
-- invitation is revoked here, for the caller to close.
CREATE OR REPLACE FUNCTION gov.shut(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    wanted bigint[] := ARRAY(SELECT jsonb_array_elements_text(request -> 'users')::bigint);
    owners bigint[];
    links bigint[];
BEGIN
    -- One after the other: two people must not off-board the last two owners at once.
    LOCK TABLE gov.lockdown IN EXCLUSIVE MODE;
    owners := ARRAY(SELECT u.id FROM public.users u JOIN public.user_roles r ON r.id = u.role_id
                     WHERE r.permissions & 1 = 1 AND u.approved AND u.confirmed_at IS NOT NULL AND NOT u.disabled);
    IF request ->> 'verb' <> 'lockdown' AND owners && wanted AND owners <@ wanted THEN
        RAISE 'This would leave the server without an owner: give another account the role Owner first. If the account '
              'is hijacked, use lockdown, then `mastodon-gov owner --reset`.';
    END IF;
    INSERT INTO gov.lockdown (user_id, username, verb, locked_by, why, role_id, evidence)
    SELECT u.id, a.username, request ->> 'verb', request ->> 'by', request ->> 'why', u.role_id, request ->> 'evidence'
      FROM public.users u JOIN public.accounts a ON a.id = u.account_id WHERE u.id = ANY (wanted)
        ON CONFLICT (user_id) WHERE lifted_at IS NULL DO NOTHING;
    -- Invitations in the name of these people, and those that wait for them.
    WITH revoked AS (
        UPDATE gov.invitation i SET revoked_at = now(), revoked_by = request ->> 'by'
         WHERE used_at IS NULL AND revoked_at IS NULL
           AND (invite_id IN (SELECT id FROM public.invites WHERE user_id = ANY (wanted))
                OR address IN (SELECT lower(email COLLATE "C") FROM public.users WHERE id = ANY (wanted))
                OR coalesce(request -> 'addresses' ? address, false)) RETURNING invite_id)
    SELECT coalesce(array_agg(invite_id), '{}') INTO links FROM revoked;
    RETURN jsonb_build_object('without_owner', owners && wanted AND owners <@ wanted, 'links', links);
EXCEPTION WHEN raise_exception THEN
    RETURN jsonb_build_object('refusal', SQLERRM);
END $$;

-- Closes the row of a user that was shut: {"user": 1, "by", "to"}; answers the role to restore. `to`: the address under
-- which the account goes on, if it is another one.
CREATE OR REPLACE FUNCTION gov.hand_back(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    entry gov.lockdown;
BEGIN
    UPDATE gov.lockdown SET lifted_at = now(), lifted_by = request ->> 'by',
           handed_to = lower(request ->> 'to' COLLATE "C")
     WHERE user_id = (request ->> 'user')::bigint AND lifted_at IS NULL RETURNING * INTO entry;
    IF entry.id IS NULL THEN
        RETURN jsonb_build_object('refusal', 'This account was not shut by offboard, lockdown or the sweep, so there '
                                             'is nothing to hand back: see `mastodon-gov people`.');
    END IF;
    RETURN jsonb_build_object('role_id', (SELECT id FROM public.user_roles WHERE id = entry.role_id));
END $$;

CREATE OR REPLACE FUNCTION gov.lockdowns() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    SELECT coalesce(jsonb_agg(to_jsonb(l) ORDER BY l.id), '[]') FROM gov.lockdown l
$$;
