require_relative "tables"

ActiveRecord::Schema[7.2].define(version: 2025_10_23_210145) do
  Tables.new(connection).load
  # Dropped by a post-deployment migration of 4.6.5: its absence shows that the second half of the upgrade ran.
  execute "CREATE INDEX index_session_activations_on_user_agent ON session_activations (user_agent)"
end
