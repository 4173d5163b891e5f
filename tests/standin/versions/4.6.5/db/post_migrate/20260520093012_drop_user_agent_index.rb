# Code of 4.5 still uses the index, so it goes only after the last old process has stopped.
class DropUserAgentIndex < ActiveRecord::Migration[7.2]
  def up
    execute "DROP INDEX IF EXISTS index_session_activations_on_user_agent"
  end

  def down
    execute "CREATE INDEX index_session_activations_on_user_agent ON session_activations (user_agent)"
  end
end
