# Making links. Trap: the form's limits are only offered, never demanded.
class InvitesController < ApplicationController
  before_action -> { require_right(:invite_users) }
  before_action :private_answer

  def index
    @invites = current_user.invites.order(id: :desc)
    respond_to do |format|
      format.html
      format.json { render json: @invites.map { |invite| invite.slice(:id, :code, :max_uses, :uses, :expires_at) } }
    end
  end

  def create
    current_user.invites.create!(params.fetch(:invite, {}).permit(:max_uses, :expires_in, :autofollow, :comment))
    redirect_to invites_path
  end

  def destroy
    current_user.invites.find(params[:id]).update!(expires_at: Time.now.utc)
    redirect_to invites_path
  end
end
