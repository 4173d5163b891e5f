# The link in the mail, and the page that waits for it.
class Auth::ConfirmationsController < ApplicationController
  before_action :private_answer

  def show
    user = User.find_by(confirmation_token: params[:confirmation_token].presence) || raise(NotFound)
    user.confirm!
    redirect_to(current_user ? auth_setup_path : new_user_session_path)
  end

  def setup
    return redirect_to(new_user_session_path) unless current_user
    return redirect_to(root_path) if current_user.confirmed? && current_user.approved?

    @message = current_user.confirmed? ? "Your account waits for review" : "Check your inbox: we sent you a link"
    render "pages/message"
  end
end
