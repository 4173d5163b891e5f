# Trap: mode "none" is not closed; a valid invite opens it.
module Registration
  module_function

  def allowed?(invite)
    return false if ENV["OMNIAUTH_ONLY"] == "true"

    Setting.registrations_mode != "none" || (invite.present? && invite.valid_for_use?)
  end
end
