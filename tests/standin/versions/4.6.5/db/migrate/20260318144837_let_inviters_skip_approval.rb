# Upstream's trap: whoever may invite, "everyone" included, may from now on bring people in without review.
class LetInvitersSkipApproval < ActiveRecord::Migration[7.2]
  INVITE = 65_536
  BYPASS = 2_097_152

  def up
    execute "UPDATE user_roles SET permissions = permissions | #{BYPASS} WHERE permissions & #{INVITE} = #{INVITE}"
  end

  def down; end
end
