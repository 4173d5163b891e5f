# Builds the tables from db/columns.tsv (table, column, type, nullable, default), the list observed on a real
# instance. Keys, indexes and views are the few that the application or the deployment relies on.
class Tables
  EXTRA = { "backups" => [ # as upstream's db/schema.rb: archives that people asked for
    %w[id bigint NO nextval('backups_id_seq'::regclass)], %w[user_id bigint YES], %w[dump_file_name character\ varying YES],
    %w[dump_content_type character\ varying YES], %w[dump_updated_at timestamp\ without\ time\ zone YES],
    %w[processed boolean NO false], %w[created_at timestamp\ without\ time\ zone NO],
    %w[updated_at timestamp\ without\ time\ zone NO], %w[dump_file_size bigint YES]
  ], "custom_emojis" => [ # as there, what an emoji of this server uses
    %w[id bigint NO nextval('custom_emojis_id_seq'::regclass)], %w[shortcode character\ varying NO ''::character\ varying],
    %w[domain character\ varying YES], %w[image_file_name character\ varying YES], %w[image_content_type character\ varying YES],
    %w[image_file_size integer YES], %w[image_updated_at timestamp\ without\ time\ zone YES], %w[disabled boolean NO false],
    %w[visible_in_picker boolean NO true], %w[category_id bigint YES],
    %w[created_at timestamp\ without\ time\ zone NO], %w[updated_at timestamp\ without\ time\ zone NO]
  ] }.freeze

  UNIQUE = {
    "accounts" => "lower(username), coalesce(lower(domain), '')", "account_stats" => "account_id", "custom_emojis" => "shortcode, domain",
    "domain_allows" => "domain", "domain_blocks" => "domain", "email_domain_blocks" => "domain",
    "identities" => "uid, provider", "invites" => "code", "ip_blocks" => "ip", "media_attachments" => "shortcode",
    "oauth_access_grants" => "token", "oauth_access_tokens" => "token", "oauth_applications" => "uid",
    "rule_translations" => "rule_id, language", "session_activations" => "session_id", "settings" => "var",
    "site_uploads" => "var", "software_updates" => "version", "statuses" => "uri",
    "terms_of_services" => "effective_date", "username_blocks" => "normalized_username",
    "webauthn_credentials" => "external_id", "users" => "email"
  }.freeze

  FOREIGN = [
    %w[account_stats account_id accounts CASCADE], %w[invites user_id users CASCADE],
    %w[identities user_id users CASCADE], %w[media_attachments account_id accounts SET\ NULL],
    %w[media_attachments status_id statuses SET\ NULL], %w[oauth_access_grants application_id oauth_applications CASCADE],
    %w[oauth_access_grants resource_owner_id users CASCADE], %w[oauth_access_tokens application_id oauth_applications CASCADE],
    %w[oauth_access_tokens resource_owner_id users CASCADE], %w[rule_translations rule_id rules CASCADE],
    %w[backups user_id users SET\ NULL], %w[session_activations user_id users CASCADE], %w[session_activations access_token_id oauth_access_tokens CASCADE],
    %w[statuses account_id accounts CASCADE], %w[users account_id accounts CASCADE],
    %w[users invite_id invites SET\ NULL], %w[users role_id user_roles SET\ NULL],
    %w[users created_by_application_id oauth_applications SET\ NULL], %w[webauthn_credentials user_id users CASCADE],
    %w[account_deletion_requests account_id accounts CASCADE], %w[account_migrations account_id accounts CASCADE],
    %w[account_migrations target_account_id accounts SET\ NULL], %w[login_activities user_id users CASCADE],
    %w[account_statuses_cleanup_policies account_id accounts CASCADE], %w[scheduled_statuses account_id accounts CASCADE],
    %w[web_push_subscriptions user_id users CASCADE], %w[web_push_subscriptions access_token_id oauth_access_tokens CASCADE]
  ].freeze

  INDEXES = {
    "users" => ["account_id", "confirmation_token", "role_id", "created_by_application_id"],
    "statuses" => ["account_id, id DESC", "created_at"], "media_attachments" => ["status_id", "account_id"],
    "invites" => ["user_id"], "oauth_access_tokens" => ["resource_owner_id"], "session_activations" => ["user_id"],
    "admin_action_logs" => ["account_id"]
  }.freeze

  # Minimal forms. Concurrent refreshing, which the scheduler does, needs a unique index on each.
  VIEWS = {
    "instances" => ["domain", "SELECT domain, count(*) AS accounts_count FROM accounts WHERE domain IS NOT NULL GROUP BY domain"],
    "account_summaries" => ["account_id", <<~SQL],
      SELECT a.id AS account_id, mode() WITHIN GROUP (ORDER BY s.language) AS language, bool_or(s.sensitive) AS sensitive
      FROM accounts a JOIN statuses s ON s.account_id = a.id WHERE a.suspended_at IS NULL GROUP BY a.id
    SQL
    "global_follow_recommendations" => ["account_id", <<~SQL]
      SELECT account_id, followers_count::numeric AS rank, ARRAY['most_followed'] AS reason
      FROM account_stats WHERE followers_count > 0
    SQL
  }.freeze

  # Rails' own bookkeeping tables are made by Rails.
  OF_RAILS = %w[schema_migrations ar_internal_metadata].freeze

  def initialize(connection)
    @connection = connection
  end

  def load
    timestamp_id
    columns = read.merge(EXTRA)
    columns.each { |table, list| create(table, list) }
    FOREIGN.each { |table, column, target, action| run "ALTER TABLE #{table} ADD FOREIGN KEY (#{column}) REFERENCES #{target} ON DELETE #{action}" }
    UNIQUE.each { |table, list| run "CREATE UNIQUE INDEX ON #{table} (#{list})" }
    INDEXES.each { |table, lists| lists.each { |list| run "CREATE INDEX ON #{table} (#{list})" } }
    VIEWS.each { |name, (key, query)| run "CREATE MATERIALIZED VIEW #{name} AS #{query}; CREATE UNIQUE INDEX ON #{name} (#{key})" }
  end

  private

  def run(sql) = @connection.execute(sql)

  def read
    rows = File.readlines(File.join(__dir__, "columns.tsv"), chomp: true).map { |line| line.split("\t", -1) }
    rows.group_by(&:shift).except(*OF_RAILS)
  end

  # A table left by a loading that was interrupted goes first: nothing counts as loaded before schema_migrations exists.
  def create(table, columns)
    run "DROP TABLE IF EXISTS #{table} CASCADE; DROP SEQUENCE IF EXISTS #{table}_id_seq; CREATE SEQUENCE #{table}_id_seq"
    run "CREATE TABLE #{table} (#{columns.map { |column| definition(*column) }.join(', ')}, PRIMARY KEY (id))"
    run "ALTER SEQUENCE #{table}_id_seq OWNED BY #{table}.id"
  end

  def definition(name, type, nullable, default = "")
    type = name.end_with?("_ids") ? "bigint[]" : "character varying[]" if type == "ARRAY"
    [name, type, ("NOT NULL" if nullable == "NO"), ("DEFAULT #{default}" if default.to_s != "")].compact.join(" ")
  end

  # Ids that sort by time: milliseconds in the upper 48 bits, a running number in the lower 16.
  def timestamp_id
    run <<~SQL
      CREATE OR REPLACE FUNCTION timestamp_id(table_name text) RETURNS bigint LANGUAGE sql VOLATILE AS $$
        SELECT ((extract(epoch FROM clock_timestamp()) * 1000)::bigint << 16) | (nextval(table_name || '_id_seq') & 65535)
      $$
    SQL
  end
end
