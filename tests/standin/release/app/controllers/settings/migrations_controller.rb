# Moving away: with the followers, or as a mere redirection.
class Settings::MigrationsController < ApplicationController
  before_action -> { redirect_to new_user_session_path unless current_user }
  before_action :private_answer

  def show; end

  def create
    given = params.require(:account_migration)
    return refuse(422, "This password is wrong") unless current_user.password?(given[:current_password])

    target = Account.find_local(given[:acct]) || raise(NotFound)
    AccountMigration.create!(account: current_user.account, acct: given[:acct], target_account: target)
    current_user.account.update!(moved_to_account_id: target.id)
    redirect_to settings_migration_path
  end

  def redirect
    given = params.require(:form_redirect)
    return refuse(422, "This password is wrong") unless current_user.password?(given[:current_password])

    current_user.account.update!(moved_to_account_id: (Account.find_local(given[:acct]) || raise(NotFound)).id)
    redirect_to settings_migration_path
  end
end
